"""What others' cosignatures say of our log: how much of it stood there, and when."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.canonical import parse_time
from schemas.cosignature import cosignatures
from schemas.errors import EvidenceError, RejectedError
from services.exchange import parties
from services.exchange.effects import EFFECTS
from services.exchange.store import arrived, heads
from services.exchange.store.arrived import Told
from services.ledger.records import read_record
from services.ledger.store import Store, Transaction
from services.ledger.store.audit import Entry
from services.ledger.times import Times

# Growth that nobody else has seen for so long is something a person should know of.
ALONE_MAX = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a witness has seen our log: its newest cosignature, and since when it saw no more.

    `behind_since` is None while our newest checkpoint is cosigned.
    """

    name: str
    size: int
    cosigned_at: datetime | None
    behind_since: datetime | None

    def alone(self, now: datetime) -> bool:
        """Return whether the log has grown for too long without this witness."""
        return self.behind_since is not None and now - self.behind_since >= ALONE_MAX


async def standing(tx: Transaction, name: str) -> Standing:
    """Return how far the witness of this name has seen our log."""
    found = await heads.newest_by(tx, name)
    size = 0 if found is None else found.size
    return Standing(
        name=name,
        size=size,
        cosigned_at=None if found is None else found.cosigned_at,
        behind_since=await heads.not_cosigned_since(tx, size),
    )


async def standing_of_peer(tx: Transaction, peer: str) -> Standing | None:
    """Return how far the other agency has seen our log; None before we trust a cosigner of it."""
    files = [row for row in await parties.listed(tx) if row.agency == peer]
    if not files or files[0].status != "current":
        return None
    keys = parties.read(files[0]).cosigners()
    return await standing(tx, keys[0].name) if keys else None


async def times_of(database: Store, agency: str, *, origin: str | None = None) -> Times:
    """Return the times at which the peer saw our log, or with `origin` one that a restore ended.

    Every cosignature is verified under a key of the peer that a person trusted. Raises
    `EvidenceError` NB-3053 for one that the peer did not make, NB-3145 for a party file that was
    changed.
    """
    async with database.transaction() as tx:
        files = [parties.read(row) for row in await parties.listed(tx) if row.agency != agency]
        rows = await heads.cosigned_notes(tx, origin)
    witnesses = [key for file in files for key in file.cosigners()]
    seen = [
        (size, each.at)
        for size, note, line in rows
        for each in cosignatures(note + line, witnesses)
    ]

    async def came(entry: Entry) -> bool:
        if entry.action not in EFFECTS or entry.notice_id is None or entry.message_id is None:
            return False
        async with database.transaction() as tx:
            told = await arrived.told_before(
                tx, entry.notice_id, entry.message_id, below=entry.index, former=origin
            )
        # A message has one effect: a second one is nobody's.
        return not any(each.action in EFFECTS for each in told) and any(
            each.action == "message.received" and _waited_since(each, entry.recorded_at)
            for each in told
        )

    return Times(seen=seen, came=came)


def _waited_since(told: Told, at: datetime) -> bool:
    """Say whether a message is on record as held since it came then, or as set aside since."""
    if told.record is None:
        # Its bytes are in an archive, and what it says beyond its columns is proven with that.
        return told.recorded_at == at
    with suppress(EvidenceError, RejectedError, TypeError, AttributeError):
        said = read_record(told.record, index=0)
        since = said.get("detail", {}).get("since")
        if since is not None:
            return parse_time(since) == at
        return said.get("result") == "held" and parse_time(said["time"]) == at
    return False
