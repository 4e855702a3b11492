"""Find out what is wrong, and how to fix it: one line a check, in the order things depend.

A check that needs what failed before it is left out, because it would only repeat it.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import typer

from schemas.errors import NoticeBusError
from services.cli import output
from services.cli.conflicts import conflict_line
from services.cli.everywhere import Output, verb
from services.cli.exits import ExitCode
from services.cli.output import Column
from services.cli.session import Doubtful, Session, session_of

if TYPE_CHECKING:
    from services.exchange.agency import Agency
    from services.exchange.retiring import Former, Sealing
    from services.exchange.seen import Seen
    from services.exchange.witnessed import Standing
    from services.ledger.store import Store
    from services.settings import Settings

app = verb()

DISK_FREE_SHARE_MIN = 0.1
# Two keepers have to meet or call each other before a new key can be used.
EXPIRY_WARNING_DAYS = 60
MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `state` is ok, warning or problem; `fix` is there unless it is ok."""

    check: str
    state: str
    detail: str
    fix: str = ""


@app.command()
def doctor(ctx: typer.Context) -> None:
    """Check settings, keys, store, bus and exchange; exit 1 when there is a problem."""
    session = session_of(ctx)
    findings = list(_findings(session))
    problems = sum(finding.state == "problem" for finding in findings)
    if output.chosen(session.given.output) is Output.TABLE:
        for finding in findings:
            fix = f"  → {finding.fix}" if finding.fix else ""
            output.emit_text(
                output.printable(
                    f"{MARKS[finding.state]} {finding.check:<10} {finding.detail}{fix}"
                )
            )
    else:
        session.emit(
            [asdict(finding) for finding in findings],
            schema="doctor",
            columns=[Column("check"), Column("state"), Column("detail"), Column("fix")],
            empty="",
        )
    warnings = sum(finding.state == "warning" for finding in findings)
    session.remark(f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}")
    if problems:
        raise typer.Exit(ExitCode.FAILED)


def _findings(session: Session) -> Iterator[Finding]:
    settings = session.settings
    yield from _configured(settings)
    yield _disk(settings)
    keys = _keys(settings)
    yield keys
    if keys.state != "problem":
        yield from expiring(settings, datetime.now(UTC))
    try:
        # One thing after the other, because one that is away would hide what else is wrong.
        sealing, anchored = session.with_store(
            lambda store: _log(store, settings), doubtful=Doubtful.LEFT
        )
    except NoticeBusError as error:
        yield _problem("store", error)
        return
    yield Finding("store", "ok", "answers, migrated")
    yield sealing
    yield anchored
    yield from _cosigned(session)
    if keys.state == "problem":
        return
    from services.exchange.seen import look

    try:
        seen = session.with_agency(look, bus=True)
        trusted = session.with_agency(_peer_trusted)
    except NoticeBusError as error:
        yield _problem("bus", error)
        return
    yield Finding("bus", "ok", f"answers, {len(seen.outgoing)} streams out")
    yield trusted
    yield from _sealed(session)
    yield from _readers(seen)
    yield from _exchange(seen)


def _configured(settings: "Settings") -> Iterator[Finding]:
    from services.settings import unknown_variables

    database, redis = (
        "embedded" if url is None else "named"
        for url in (settings.database_url, settings.redis_url)
    )
    where = f"store {database}, bus {redis}"
    yield Finding("settings", "ok", f"{settings.agency}, {settings.domain}, {where}")
    for variable in unknown_variables(os.environ):
        yield Finding(
            "settings", "warning", f"nothing reads {variable}", "See `noticebus config show`."
        )


def _disk(settings: "Settings") -> Finding:
    folder = settings.home.absolute()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    share = usage.free / usage.total
    detail = f"{share:.0%} free at {folder}"
    if share < DISK_FREE_SHARE_MIN:
        return Finding("disk", "warning", detail, "Free some space: the ledger only grows.")
    return Finding("disk", "ok", detail)


def _keys(settings: "Settings") -> Finding:
    from services.keys import KeyRing

    try:
        KeyRing.load(settings.keys_folder)
    except NoticeBusError as error:
        return _problem("keys", error)
    loose = [
        each.name
        for each in settings.keys_folder.rglob("*")
        if each.is_file() and stat.S_IMODE(each.stat().st_mode) & 0o077
    ]
    if loose:
        return Finding(
            "keys",
            "problem",
            f"others on this machine can read {', '.join(sorted(loose))}",
            f"chmod 600 {settings.keys_folder}/*",
        )
    return Finding("keys", "ok", f"complete, in {settings.keys_folder}")


def expiring(settings: "Settings", now: datetime) -> Iterator[Finding]:
    """Tell which keys in use the policy wants renewed by `now` or soon, and what is half done."""
    from schemas import codes
    from services.keys import COSIGNER, LOG, KeyRing

    ring = KeyRing.load(settings.keys_folder)
    days = codes.policy().key_days
    for use, made_at in ring.made_at.items():
        ends = made_at + timedelta(days=days)
        if ends - now <= timedelta(days=EXPIRY_WARNING_DAYS):
            when = "expired on" if ends <= now else "expires on"
            fix = f"`noticebus keys rotate {use}`, then hand over our new party file."
            yield Finding("expiry", "warning", f"the {use} key {when} {ends:%Y-%m-%d}", fix)
    for use, also in ((LOG, ring.log_also), (COSIGNER, ring.cosigner_also)):
        if also is not None:
            fix = f"`noticebus keys rotate {use} --finish` once our new party file is trusted."
            yield Finding("expiry", "warning", f"the {use} key is being renewed", fix)


async def _log(store: "Store", settings: "Settings") -> tuple[Finding, Finding]:
    from services.watch import unsealed

    return _sealing(await unsealed(store)), await _anchored(store, settings)


def _sealing(unsealed: int) -> Finding:
    if unsealed:
        what = f"{_counted(unsealed, 'record')} {'waits' if unsealed == 1 else 'wait'}"
        fix = "Start our processes with `noticebus run`: receipts and proofs need a seal."
        return Finding("ledger", "warning", f"{what} for the sealer", fix)
    return Finding("ledger", "ok", "no record waits for the sealer")


def _cosigned(session: Session) -> Iterator[Finding]:
    """Say how far the other agency has seen our log, and a third witness where one is configured.

    Of the other agency nothing is said before a person trusted it.
    """
    from services.exchange.witnessed import standing, standing_of_peer

    verifier = session.settings.witness.verifier

    async def look(store: "Store") -> "tuple[Standing | None, Standing | None]":
        async with store.transaction() as tx:
            third = None if verifier is None else await standing(tx, verifier.name)
            return await standing_of_peer(tx, session.settings.peer), third

    peer, third = session.with_store(look, doubtful=Doubtful.LEFT)
    if peer is not None:
        fix = (
            "Let both agencies run, and the other one trust our newest party file"
            " (`noticebus party export`)."
        )
        yield _seen_by("cosigner", peer, fix)
    if third is not None:
        fix = "See `noticebus bus status`: its alarms say why; nothing else waits for it."
        yield _seen_by("witness", third, fix)


def _seen_by(check: str, found: "Standing", fix: str) -> Finding:
    at = "never" if found.cosigned_at is None else f"{found.cosigned_at:%Y-%m-%d %H:%M:%SZ}"
    detail = f"{found.name} cosigned {_counted(found.size, 'record')}, last {at}"
    if found.alone(datetime.now(UTC)):
        return Finding(check, "warning", detail, fix)
    return Finding(check, "ok", detail)


async def _anchored(store: "Store", settings: "Settings") -> Finding:
    from services.exchange.anchors import own_anchor
    from services.ledger.anchor import look

    try:
        async with store.transaction() as tx:
            found = await look(tx, await own_anchor(tx, settings))
    except NoticeBusError as error:
        return _problem("anchor", error)
    if (broken := found.error()) is not None:
        return _problem("anchor", broken)
    size = f"{found.anchor.size:,} records" if found.anchor else "nothing yet"
    return Finding("anchor", "ok", f"{size} anchored outside the store, in {found.path}")


async def _peer_trusted(agency: object) -> Finding:
    from services.exchange.agency import Agency

    if not isinstance(agency, Agency) or agency.directory.newest is None:
        error = NoticeBusError("NB-4011")
        return Finding("party", "problem", error.sentence, error.fix)
    return Finding("party", "ok", f"{agency.peer} is trusted")


def _sealed(session: Session) -> Iterator[Finding]:
    """Say how what is on its way is encrypted: ours to the other agency, and its to us."""
    from services.exchange.retiring import former_keys, sealing

    async def look(agency: "Agency") -> "tuple[Sealing, list[Former]]":
        return await sealing(agency), await former_keys(agency)

    peer = session.settings.peer
    ours, former = session.with_agency(look, bus=True)
    if ours.kid is not None:
        detail = f"to {peer}'s key {ours.kid[:12]}"
        if ours.under_former:
            waiting = _counted(ours.under_former, "message")
            detail += f", and {waiting} unanswered under a former one"
            fix = f"{peer} keeps its former key until they are answered: `noticebus bus status`."
            yield Finding("encrypts", "warning", detail, fix)
        else:
            yield Finding("encrypts", "ok", f"{detail}, nothing waits under a former one")
    for each in former:
        what = f"the former encryption key {each.kid[:12]}"
        if each.needed:
            yield Finding("opens", "ok", f"{what} is still needed: {', '.join(each.needed)}")
            continue
        fix = "`noticebus keys rotate encryption --finish`"
        if each.unheard:
            fix += f", once `noticebus doctor` at {peer} says that nothing waits under a former key"
        yield Finding("opens", "warning", f"{what} can be put away", f"{fix}.")


def _readers(seen: "Seen") -> Iterator[Finding]:
    ours = {group.stream: group for group in seen.groups if group.group == seen.agency}
    unread = [
        stream for stream in seen.incoming if stream not in ours or not seen.readers(ours[stream])
    ]
    if not unread:
        yield Finding("readers", "ok", f"all {len(seen.incoming)} streams in are read")
        return
    detail = f"nobody reads {', '.join(unread)}"
    fix = "Start our processes with `noticebus run`, or look why they ended."
    if seen.living:
        detail += f", though a process lives ({', '.join(sorted(seen.living))})"
        fix = "See `noticebus bus groups`; a process that has just started begins within seconds."
    yield Finding("readers", "problem", detail, fix)


def _exchange(seen: "Seen") -> Iterator[Finding]:
    standing = seen.standing
    if standing.conflicts:
        fix = "See `noticebus ledger conflicts`; it stays until a person resolves it."
        yield Finding("conflicts", "problem", conflict_line(standing.conflicts), fix)
    checks = [
        ("answers", standing.overdue, "answers are overdue", "`noticebus bus status`"),
        ("gaps", standing.gap_sequences, "sequences are missing", "`noticebus bus status`"),
        ("dead", standing.dead, "dead letters wait for a person", "`noticebus dead list`"),
        ("alarms", standing.alarms, "alarms are open", "`noticebus bus status`"),
    ]
    for check, count, what, look in checks:
        if count:
            yield Finding(check, "warning", f"{count:,} {what}", f"See {look}.")
        else:
            yield Finding(check, "ok", f"no {what}")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _problem(check: str, error: NoticeBusError) -> Finding:
    return Finding(check, "problem", f"{error.code} {error.sentence}", error.fix)
