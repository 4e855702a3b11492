"""The report of a bundle: what happened, what it proves, what it does not, how to check it.

One text, written twice: plain, and as a PDF. It is for people who decide whether to believe, so it
says first what was found, and as plainly what no proof of this kind can show.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from textwrap import wrap
from typing import Any
from uuid import UUID

from schemas import codes
from schemas.canonical import format_time, parse
from schemas.checkpoint import parse_checkpoint
from schemas.cosignature import cosignatures
from schemas.ending import Disputed
from schemas.errors import wordings
from schemas.party import Party
from schemas.proof import parse_tlog_proof
from services.exchange.store.parties import PartyRow
from services.proof.gathering import Gathered
from services.proof.members import About, by_notice, policies_of, witnesses_of
from services.proof.store import Message, Recorded

WIDTH = 96


class Style(Enum):
    """How a paragraph is set."""

    TITLE = "title"
    HEADING = "heading"
    TEXT = "text"
    POINT = "point"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of the report."""

    style: Style
    text: str


SHOWS = (
    "Each message below was signed by the agency named as its sender, with a key that only this"
    " agency has. Nobody else could have written it, and not a character was changed since.",
    "A receipt is an entry in the other agency's own append-only log. It proves that this agency"
    " had exactly these bytes when it signed the checkpoint named with it. It cannot deny that.",
    "Each record below stands at its place in the log of the agency that made this bundle. The"
    " checkpoint fixes every record up to its size: removing, changing or inserting one would give"
    " another root, and a checkpoint that was signed before would expose it.",
    "The older checkpoints in this bundle are the beginning of the newest one: nothing before them"
    " was taken away or dated back between the two.",
)
SHOWS_NOT = (
    "That nothing else exists. Each agency can withhold a message, an answer or a record from a"
    " bundle. That this bundle has no receipt for a message does not prove that none was given.",
    "Anything against both agencies acting together: they could write a different history and sign"
    " it. Checkpoints that were given to somebody else before would show it; ask for theirs.",
    "That a time is right. Times are what each agency's clock said. What is proven is the order of"
    " records in a log, and that a record was there when its checkpoint was signed.",
    "That the child failed to appear, or why. 'Did not appear' is what the court recorded. Many"
    " missed hearings follow notices that never arrived, a wrong room, or a changed date.",
    "What people did, beyond what they recorded. That a person took a case is what the log says;"
    " the log does not show what was done for the child.",
    "Whose keys these are. Compare the fingerprints below with those that each agency tells you"
    " itself, on paper or by telephone, and not with those in any file that came with this one.",
)
ERASED = (
    "Contents are erased when their retention ends. Of such a message the bundle shows its hash, in"
    " the records, and who signed the bytes with this hash; what it said can no longer be shown."
)


def paragraphs(gathered: Gathered, about: About) -> Iterator[Paragraph]:
    """Yield the report."""
    count = len(gathered.notices)
    yield Paragraph(Style.TITLE, "Proof about missed-hearing notices between ICE and HHS")
    what = ", ".join(f"{name} {value}" for name, value in about.selection.items())
    yield Paragraph(
        Style.TEXT,
        f"Made by {about.agency.upper()} at {format_time(about.made_at)} (UTC), about {count}"
        f" notice{'' if count == 1 else 's'} ({what}). It rests on the checkpoint of"
        f" {gathered.size} records of the log {gathered.origin}.",
    )
    yield Paragraph(
        Style.TEXT,
        "It holds personal data, which somebody asked for with a reason that is on record."
        if about.revealed
        else "It holds no personal data: contents are encrypted, names are commitments.",
    )
    if gathered.conflicts:
        yield Paragraph(Style.HEADING, f"The log of {about.peer.upper()} is in doubt")
        yield from _in_doubt(gathered, about)
    yield Paragraph(Style.HEADING, "What happened")
    yield from _notices(gathered, about)
    yield Paragraph(Style.HEADING, "What this shows")
    yield from (Paragraph(Style.POINT, text) for text in SHOWS)
    yield Paragraph(Style.HEADING, "What this does not show")
    yield from (Paragraph(Style.POINT, text) for text in SHOWS_NOT)
    yield Paragraph(Style.POINT, ERASED)
    yield Paragraph(Style.HEADING, "Checkpoints, and who saw them when")
    yield from _checkpoints(gathered)
    yield Paragraph(Style.HEADING, "Whose keys")
    for row in gathered.parties:
        yield Paragraph(
            Style.POINT,
            f"{row.agency.upper()}, {row.status}, since {format_time(row.trusted_at)}:"
            f" {row.fingerprint}",
        )
    for row in gathered.parties:
        if row.status == "current":
            yield from (Paragraph(Style.POINT, text) for text in _ended(row))
    if gathered.left_out:
        count = len(gathered.left_out)
        yield Paragraph(
            Style.POINT,
            f"Left out: {count} message{'' if count == 1 else 's'} under a key that had ended, of"
            " which nothing shows that they were there before. They would prove nothing.",
        )
    yield from (Paragraph(Style.POINT, text) for text in _disputed(gathered, about))
    for vkey in gathered.witnesses:
        yield Paragraph(
            Style.POINT,
            f"A third witness cosigned checkpoints in here; ask it for its key: {vkey}",
        )
    yield Paragraph(Style.HEADING, "Policies and code lists")
    listed = codes.policies()
    for version in policies_of(gathered):
        known = listed.get(version)
        meaning = "not known to this program" if known is None else known.meaning
        yield Paragraph(Style.POINT, f"Policy {version}: {meaning} ({listed.source})")
    yield Paragraph(Style.POINT, "The lists are in codes/, each with its source and its day.")
    yield Paragraph(Style.HEADING, "How to check it")
    yield Paragraph(
        Style.TEXT,
        "With Python and openssl alone: unpack the bundle and run the program in it. README.txt has"
        " the same checks by hand, with tools that nobody of either agency wrote.",
    )
    yield Paragraph(Style.COMMAND, "unzip -q proof.zip -d proof && python3 proof/verify.py")


def _in_doubt(gathered: Gathered, about: About) -> Iterator[Paragraph]:
    """Say what the other agency signed and cannot both be true, and what in here rests on it."""
    yield Paragraph(
        Style.TEXT,
        f"{about.peer.upper()} signed what cannot both be true, and nobody at"
        f" {about.agency.upper()} has resolved it. Both notes are in conflicts/.",
    )
    points = [
        parse_checkpoint(parse_tlog_proof(receipt.proof).checkpoint).checkpoint
        for receipt in gathered.receipts.values()
    ]
    for each in gathered.conflicts:
        rest = sum(point.origin == each.origin and point.size >= each.size for point in points)
        sentence = wordings()[each.code].sentence
        yield Paragraph(
            Style.POINT,
            f"{each.code}, found {format_time(each.found_at)}:"
            f" {sentence.format(origin=each.origin, size=each.size)}. Receipts in here that rest on"
            f" {each.size} or more of its records: {rest}.",
        )


def _ended(row: PartyRow) -> Iterator[str]:
    """Say how signing keys of a party ended."""
    for kid, ending in Party.from_bytes(row.party).endings().items():
        if ending.revoked is not None:
            yield (
                f"The key {kid} of {row.agency.upper()} was revoked as of"
                f" {format_time(ending.revoked.at)}. What it signed counts only where a checkpoint"
                " covers it that the other agency had cosigned before."
            )
        elif ending.retired is not None:
            yield (
                f"The key {kid} of {row.agency.upper()} was retired at"
                f" {format_time(ending.retired.at)}, and counts up to its last sequences."
            )


def _disputed(gathered: Gathered, about: About) -> Iterator[str]:
    """Say which signatures their signer would take back, and what it had cosigned itself."""
    by_key: dict[str, list[Disputed]] = {}
    for _, each in gathered.disputed:
        by_key.setdefault(each.kid, []).append(each)
    for kid, found in by_key.items():
        first = min(found, key=lambda each: each.cosigned_at)
        last = max(found, key=lambda each: each.cosigned_at)
        what = "signature" if len(found) == 1 else "signatures"
        maker, signer = about.agency.upper(), about.peer.upper()
        yield (
            f"DISPUTED: {len(found)} {what} under the key {kid} of {signer}, which claims that"
            f" others had it since {format_time(first.since)}. {signer} cosigned the records of"
            f" them in {maker}'s log itself, from {_second(first.cosigned_at)} to"
            f" {_second(last.cosigned_at)}; {maker} learned of the claim later, by record"
            f" {first.learned} of its log. Whether the claim is true, no mathematics tell; that it"
            " was made later is shown."
        )


def _checkpoints(gathered: Gathered) -> Iterator[Paragraph]:
    """Say of each checkpoint in the bundle who cosigned it, and when."""
    witnesses = list(witnesses_of(gathered))
    notes = [(gathered.origin, size, note) for size, note in sorted(gathered.notes.items())]
    for origin, size, note in [*notes, *gathered.peer_notes]:
        seen = [
            f"cosigned by {each.verifier.name} at {_second(each.at)}"
            for each in cosignatures(note, witnesses)
        ]
        told = "; ".join(seen) or "cosigned by nobody"
        yield Paragraph(Style.POINT, f"{origin}, {size} records: {told}.")
    loose = Counter(
        (tie.why_not, point.origin)
        for point, tie in gathered.ties.values()
        if tie.why_not is not None
    )
    for (why, origin), count in sorted(loose.items()):
        what = "receipt is" if count == 1 else "receipts are"
        yield Paragraph(
            Style.POINT,
            f"{count} {what} NOT tied to a cosigned checkpoint of {origin}: {why}. The signature of"
            " the log's keeper stands under it all the same.",
        )


def _second(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}"


def _notices(gathered: Gathered, about: About) -> Iterator[Paragraph]:
    messages, recorded = by_notice(gathered)
    for notice_id in gathered.notices:
        counts: Counter[str] = Counter(message.direction for message in messages[notice_id])
        receipts = sum(each.message_id in gathered.receipts for each in messages[notice_id])
        refusals = sum(each.message_id in gathered.refusals for each in messages[notice_id])
        waiting = sum(
            each.record_id not in gathered.records and not each.former
            for each in recorded[notice_id]
        )
        former = sum(each.former for each in recorded[notice_id])
        line = (
            f"Notice {notice_id}: {counts['sent']} messages sent, {counts['received']} received,"
            f" {receipts} receipts, {refusals} refusals."
        )
        if waiting:
            line += f" {waiting} records are not sealed yet and stand in no proof."
        if former:
            line += f" {former} records stand in a log that a restore ended, and are not in here."
        yield Paragraph(Style.TEXT, line)
        steps = _steps(gathered, about, messages[notice_id], recorded[notice_id])
        yield from (Paragraph(Style.POINT, text) for text in steps)


def _steps(
    gathered: Gathered, about: About, messages: Sequence[Message], recorded: Sequence[Recorded]
) -> list[str]:
    """Return what happened to a notice in order of time, both sides together."""
    steps: list[tuple[str, str]] = []
    for each in recorded:
        said: Mapping[str, Any] = parse(each.record)
        place = gathered.records.get(each.record_id)
        if place is not None:
            where = f"record {place.index}"
        else:
            where = "in a log that a restore ended" if each.former else "not sealed yet"
        code = f", {said['reason']}" if "reason" in said else ""
        policy = f", policy {said['policy']}" if "policy" in said else ""
        steps.append(
            (
                str(said["time"]),
                f"{about.agency.upper()} {each.action} ({said['result']}{code}{policy}), {where}",
            )
        )
    for message in messages:
        receipt = gathered.receipts.get(message.message_id)
        if message.direction == "sent" and receipt is not None:
            said = parse(receipt.record)
            steps.append(
                (
                    str(said["time"]),
                    f"{about.peer.upper()} has it: receipt for the {message.kind} message"
                    f" ({said['result']}), record {receipt.index} of its log,"
                    f" {_tied(gathered, message.message_id)}",
                )
            )
    return [f"{time}  {text}" for time, text in sorted(steps)]


def _tied(gathered: Gathered, message_id: UUID) -> str:
    """Say under which checkpoint a receipt stands, and which cosigned one that is tied to."""
    point, tie = gathered.ties[message_id]
    under = f"under its checkpoint of {point.size} records"
    if tie.why_not is not None:
        return f"{under}, NOT tied to a cosigned one: {tie.why_not}"
    beginning = "" if tie.size == point.size else f" the beginning of that of {tie.size},"
    seen = cosignatures(tie.note, list(witnesses_of(gathered)))
    who = " and ".join(f"{each.verifier.name} cosigned at {_second(each.at)}" for each in seen)
    return f"{under},{beginning} which {who}"


def plain(report: Sequence[Paragraph]) -> bytes:
    """Return the report as text."""
    lines: list[str] = []
    for each in report:
        match each.style:
            case Style.TITLE:
                lines += [each.text, "=" * len(each.text)]
            case Style.HEADING:
                lines += ["", each.text, "-" * len(each.text)]
            case Style.TEXT:
                lines += ["", *wrap(each.text, WIDTH)]
            case Style.POINT:
                lines += wrap(each.text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
            case Style.COMMAND:
                lines += ["", f"    {each.text}"]
    return ("\n".join(lines) + "\n").encode()
