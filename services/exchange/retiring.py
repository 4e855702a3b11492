"""Put former encryption keys away, once nothing that was encrypted to them is unanswered.

Each side knows a half. The sender knows what of its own is unanswered, and to which key it is
encrypted: nothing new goes to a former one from the moment at which it trusts our newer party file,
since it trusts with all streams held. We know what came: a message under a newer key says that its
stream uses no older one any more, and that all before it in the stream was older. Where none came
since, nothing here tells, and a person asks the other side, whose `doctor` counts its half.

A key that was put away opens no message, and still every file: backups and archives stay readable.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.envelope import Lane, encrypted_to
from schemas.errors import ConflictError
from schemas.party import Party
from services.bus import Publisher, group_status
from services.exchange import parties
from services.exchange.agency import Agency
from services.exchange.process import incoming_streams
from services.exchange.store import retiring as store
from services.keys import KeyRing
from services.ledger.records import make_record
from services.ledger.store import append


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """A former encryption key of ours, and what may still need it, in words.

    On `unheard` streams nothing under a newer key came: what is under way there is not known here.
    """

    kid: str
    replaced_at: datetime
    needed: tuple[str, ...]
    unheard: tuple[str, ...]


async def former_keys(agency: Agency) -> list[Former]:
    """Return our former encryption keys, the oldest first.

    Raises `UnavailableError` where store or bus do not answer.
    """
    ring = agency.ring
    if len(ring.encryption_keys) == 1:
        return []
    streams = [each for each in incoming_streams(agency) if f".{Lane.CONTROL}." not in each]
    unread = await _unread(agency, streams)
    async with agency.store.transaction() as tx:
        held = await _counted(store.held(tx))
        dead = await _counted(store.open_letters(tx))
        missing = await store.missing(tx, streams)
        newest = {each.stream: each.envelope for each in await store.newest(tx, streams)}
    found: list[Former] = []
    kids = [key.kid for key in ring.encryption_keys]
    for at, kid in reversed(list(enumerate(kids))[1:]):
        reasons = (
            (held[kid], "held messages are encrypted to it"),
            (dead[kid], "open dead letters are encrypted to it"),
            (missing, "messages are missing on the way here"),
            (unread, "entries on the bus are not taken yet"),
        )
        newer = set(kids[:at])
        found.append(
            Former(
                kid=kid,
                replaced_at=ring.key_made_at[kids[at - 1]],
                needed=tuple(f"{count:,} {what}" for count, what in reasons if count),
                unheard=tuple(
                    stream
                    for stream in streams
                    if (last := newest[stream]) is None or encrypted_to(last) not in newer
                ),
            )
        )
    return found


async def put_away(agency: Agency, kids: Sequence[str], *, actor: str) -> None:
    """Let these former encryption keys open files alone; each is on record.

    Raises `ConflictError` NB-3252 for one that may still be needed, and what `former_keys` raises.
    """
    for each in await former_keys(agency):
        if each.kid in kids and each.needed:
            raise ConflictError("NB-3252", kid=each.kid, why=", ".join(each.needed))
    async with agency.store.transaction() as tx:
        now = datetime.now(UTC)
        records = [
            make_record(
                "keys.rotated",
                time=now,
                actor=actor,
                detail={"use": "encryption", "kid": kid, "step": "finished"},
            )
            for kid in kids
        ]
        await append(tx, records)
    # Cut off before this, the key stays where it is, and the same command does it.
    KeyRing.put_away(agency.settings.keys_folder, kids)
    await agency.reload()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How what we sent and nobody answered is encrypted: to the newest key, or a former one."""

    kid: str | None
    unanswered: int
    under_former: int


async def sealing(agency: Agency) -> Sealing:
    """Return to which key of the other agency we encrypt, and what is unanswered under others."""
    newest = agency.directory.newest
    kid = None if newest is None else newest.encryption_key().kid
    async with agency.store.transaction() as tx:
        files = [row.party for row in await parties.listed(tx) if row.agency == agency.peer]
        known = {Party.from_bytes(file).encryption_key().kid for file in files}
        counted = Counter[str]() if len(known) < 2 else await _counted(store.unanswered(tx))
    former = sum(count for each, count in counted.items() if each != kid)
    return Sealing(kid=kid, unanswered=counted.total(), under_former=former)


async def _unread(agency: Agency, streams: Sequence[str]) -> int:
    """Return how many entries of these streams we have not taken yet."""
    settings = agency.settings
    url, bus = settings.redis_url_required, settings.bus
    waiting = 0
    async with Publisher.open(url, settings=bus) as publisher:
        for stream in streams:
            holding = await publisher.holding(stream)
            if holding is None:
                continue
            groups = await group_status(url, stream, settings=bus)
            ours = next((group for group in groups if group.group == agency.name), None)
            if ours is None:
                waiting += holding.length
            elif ours.last_delivered_id == holding.last:
                waiting += ours.pending
            else:
                # Redis cannot always tell how many lie ahead; one is enough.
                waiting += ours.pending + (ours.lag or 1)
    return waiting


async def _counted(envelopes: AsyncGenerator[bytes]) -> Counter[str]:
    found: Counter[str] = Counter()
    async with aclosing(envelopes) as each:
        async for envelope in each:
            found[encrypted_to(envelope) or ""] += 1
    found.pop("", None)
    return found
