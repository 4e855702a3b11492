"""Show our newest checkpoint, who cosigned it, and the other agency's log as it was seen here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import NotFoundError
from services.cli import output
from services.cli.conflicts import told
from services.cli.everywhere import Output
from services.cli.session import Doubtful, Session, session_of

if TYPE_CHECKING:
    from services.exchange.heads import Seen, Witnessed
    from services.ledger.store import Store


def checkpoint(
    ctx: typer.Context,
    *,
    inspector: Annotated[
        bool,
        typer.Option("--inspector", help="A text to hand over: both logs, keys, what it says."),
    ] = False,
) -> None:
    """Print the newest checkpoint: a signed note that anybody with our log key can verify.

    Where the other agency or a third witness cosigned it, their lines stand below ours; then come
    the newest that they cosigned, if that is older, and the other agency's log as it was seen here.
    With -o plain the newest note stands alone.
    Example: noticebus --agency ice ledger checkpoint --inspector
    """
    session = session_of(ctx)
    seen = session.with_store(seen_in, doubtful=Doubtful.REFUSED)
    if seen is None:
        raise NotFoundError("NB-7018")
    doubts = told(session)
    newest, cosigned = seen.newest, seen.cosigned
    behind = [each for each, shown in seen.witnesses if shown.size < newest.size]
    if inspector:
        output.emit_text(_for_inspector(session, seen))
        return
    chosen = output.chosen(session.given.output)
    if chosen in (Output.TABLE, Output.PLAIN):
        parts = [newest.note]
        if chosen is Output.TABLE:
            parts += _others(seen, newest)
        output.emit_text("\n".join(parts))
        if cosigned is None:
            session.remark("not cosigned yet; cosigned so far: nothing yet")
        for each in behind:
            said = f"{each.size:,} records at {each.cosigned_at:%Y-%m-%d %H:%M:%SZ}"
            session.remark(f"not cosigned yet by {each.name}; cosigned so far: {said}")
        return
    origin, _, root = newest.note.splitlines()[:3]
    session.emit_one(
        {
            "origin": origin,
            "size": newest.size,
            "root": root,
            "note": newest.note,
            **doubts,
            "cosignatures": _cosignatures(newest),
            "cosigned": None
            if cosigned is None
            else {
                "size": cosigned.size,
                "note": cosigned.note,
                "cosignatures": _cosignatures(cosigned),
            },
            "witnesses": [
                {
                    "name": each.name,
                    "vkey": each.vkey,
                    "size": each.size,
                    "at": each.cosigned_at,
                    "note": shown.note,
                }
                for each, shown in seen.witnesses
            ],
            "peer": [
                {
                    "origin": each.origin,
                    "size": each.size,
                    "note": each.note + each.line,
                    "cosigned_at": each.cosigned_at,
                }
                for each in seen.peer
            ],
        },
        schema="ledger.checkpoint",
    )


async def seen_in(store: "Store") -> "Seen | None":
    """Return what is known of both sides' checkpoints, None before our first seal."""
    from services.exchange import heads

    async with store.transaction() as tx:
        return await heads.seen(tx)


def _cosignatures(witnessed: "Witnessed") -> list[dict[str, object]]:
    return [{"name": each.name, "at": each.cosigned_at} for each in witnessed.cosignatures]


def _others(seen: "Seen", shown: "Witnessed") -> Iterator[str]:
    """Tell of what each witness cosigned last, unless it is `shown`, and of the peer's logs."""
    for kept, witnessed in seen.witnesses:
        if witnessed.size != shown.size:
            yield f"The same log as {kept.name} cosigned it last, {witnessed.size:,} records.\n"
            yield witnessed.note
    for each in seen.peer:
        yield f"The other agency's log as this agency cosigned it, {each.size:,} records.\n"
        yield each.note + each.line


@dataclass(frozen=True, slots=True)
class _PeerKeys:
    """The public keys of the other agency, of every party file of it that a person trusted.

    `fingerprint` is that of the newest file.
    """

    fingerprint: str
    log: Sequence[str]
    cosigner: Sequence[str]


def _for_inspector(session: Session, seen: "Seen") -> str:
    """Return what somebody who keeps it can hold this agency to later."""
    from schemas.cosignature import cosigner
    from services.keys import KeyRing

    ring = KeyRing.load(session.settings.keys_folder)
    shown = seen.cosigned or seen.newest
    third = {each.vkey: None for each, _ in seen.witnesses if each.vkey is not None}
    parts = [
        f"Audit log of {session.agency}, {shown.size:,} records.\n"
        "Keep this text. Whatever this agency shows later has to begin with these records: a\n"
        "log that was changed, cut off or backdated since cannot come under this signature\n"
        "again. The lines below it are from whoever saw this checkpoint, with the time; they\n"
        "show that the log had grown out of what they saw before, not that it is complete.\n",
        shown.note,
        *(f"log key      {each.vkey()}\n" for each in ring.log_verifiers),
        *_others(seen, shown),
        *(f"our cosigner {cosigner(each).vkey()}\n" for each in ring.cosigners),
        *(f"third witness {vkey}\n" for vkey in third),
    ]
    peer = session.settings.peer
    keys = session.with_store(lambda store: _peer_keys(store, peer))
    if keys is not None:
        parts += [
            *(f"log key of {peer} {vkey}\n" for vkey in keys.log),
            *(f"cosigner of {peer} {vkey}\n" for vkey in keys.cosigner),
            "Believe no key for standing in this text. Compare those of each agency with what it\n"
            "tells you itself, by another way; there it prints them as its log key and cosigner:\n"
            f"`noticebus --agency {peer} ledger checkpoint --inspector`. Those of {peer} are in\n"
            f"the party file with this fingerprint:\n{keys.fingerprint}\n",
        ]
    return "\n".join(parts)


async def _peer_keys(store: "Store", peer: str) -> "_PeerKeys | None":
    from schemas.party import Party
    from services.exchange import parties

    async with store.transaction() as tx:
        rows = [row for row in await parties.listed(tx) if row.agency == peer]
    if not rows:
        return None
    files = [Party.from_bytes(row.party) for row in rows]
    return _PeerKeys(
        rows[0].fingerprint,
        list(dict.fromkeys(vkey for file in files for vkey in file.log_keys)),
        list(dict.fromkeys(vkey for file in files for vkey in file.cosigner_keys)),
    )
