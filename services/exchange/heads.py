"""Tell the peer where our log stands, and witness where its log stands.

A head carries our newest checkpoint, the proof that it grew out of the last one that the peer
cosigned, and how far we read. Whoever receives one checks the growth against what it cosigned
before, adds its own cosignature with the time, and owes it back: in its next head. Heads make no
record, so two sides that have nothing to say fall silent after each cosigned the other; one head an
hour shows that they still live. A head that does not build upon what was cosigned gets no
cosignature, and whoever signed two roots for one size is found out by it.

A cosignature may be lost: with a head under a key that was revoked, or made with a key that the
peer does not know yet. Then the peer's heads go on to begin at less than we cosigned, though it has
read ours: so we owe the newest one again, signed with our keys of today.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import structlog
from uuid_utils.compat import uuid7

from schemas.canonical import b64, unb64
from schemas.catalog import body_of
from schemas.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from schemas.cosignature import cosign, cosignatures, cosigner, with_cosignatures
from schemas.envelope import Attributes, Kind, Lane, stream_name
from schemas.errors import EvidenceError
from schemas.proof import EMPTY_ROOT, verify_consistency
from schemas.reply import Head, StreamHead
from services.exchange import conflicts, outbox
from services.exchange.agency import Agency
from services.exchange.conflicts import FORKED, NOT_GROWN, WENT_BACK
from services.exchange.store import conflicts as store
from services.exchange.store import dead, ended, heads
from services.exchange.store.heads import Kept, Own, PeerHead
from services.exchange.witnessed import ALONE_MAX
from services.ledger import tree
from services.ledger.store import Transaction
from services.ledger.store import log as ledger

log = structlog.get_logger()

# An idle side shows this often that it lives; what was not cosigned is not told more often either.
_SILENCE = timedelta(hours=1)
# Whoever was away finds old growth, and first reads what the peer has said of it meanwhile.
_READING_FIRST = timedelta(minutes=1)

NOT_COSIGNED = "NB-3230"


@dataclass(slots=True)
class Heads:
    """Tells our heads: at most one a second, because that is how often `step` is called."""

    agency: Agency
    _began: datetime | None = field(default=None, init=False)

    async def step(self, now: datetime | None = None) -> None:
        """Put a head into the outbox if there is something to tell.

        Raises an alarm while the peer has not cosigned our growth for an hour.
        """
        newest = self.agency.directory.newest
        if newest is None or not newest.cosigner_keys:
            return
        now = now or datetime.now(UTC)
        self._began = self._began or now
        witness, peer = newest.cosigners()[0].name, self.agency.peer
        async with self.agency.store.glance() as look:
            own = await heads.own(look, witness=witness, peer=peer)
            if own is None:
                return
            behind = await heads.not_cosigned_since(look, own.since)
            alarmed = await dead.is_open(look, NOT_COSIGNED, peer)
        alone = behind is not None and now - behind >= ALONE_MAX
        if alone != alarmed and (alarmed or now - self._began >= _READING_FIRST):
            async with self.agency.store.transaction() as tx:
                change = dead.raise_alarm if alone else dead.clear_alarm
                await change(tx, NOT_COSIGNED, peer, now)
            if alone:
                log.error("peer does not cosign", code=NOT_COSIGNED, cosigned=own.since)
        if _due(own, now):
            async with self.agency.store.transaction() as tx:
                await self._tell(tx, own, now)

    async def _tell(self, tx: Transaction, own: Own, now: datetime) -> None:
        reached = await heads.read_without_gap(tx)
        message_id = uuid7()
        head = Head(
            checkpoint=own.note,
            consistency=tuple(
                b64(each) for each in await tree.consistency(tx, own.since, own.size)
            ),
            highest={
                stream: StreamHead(generation=generation, sequence=sequence)
                for stream, (generation, sequence) in reached.items()
            },
            since=own.since,
            cosigned=own.owed,
        )
        await outbox.say(
            tx,
            message_id=message_id,
            kind=Kind.HEAD,
            body=body_of(head),
            correlation_id=message_id,
            causation_id=None,
            made_at=now,
        )
        await heads.told(
            tx, origin=own.origin, size=own.size, since=own.since, now=now, owed=own.owed
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A checkpoint of ours with the cosignatures under it, `cosignatures` naming who and when."""

    size: int
    note: str
    cosignatures: tuple[Kept, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is to show: our newest checkpoint, the newest cosigned one, the peer's logs.

    `cosigned` is None before the first cosignature. `witnesses` has the newest checkpoint that each
    witness cosigned, the peer and a third one. A log of the peer stands there with our line.
    """

    newest: Witnessed
    cosigned: Witnessed | None
    witnesses: tuple[tuple[Kept, Witnessed], ...]
    peer: tuple[PeerHead, ...]


async def seen(tx: Transaction) -> Seen | None:
    """Return what is known of both sides' checkpoints, None before our first seal.

    Raises `EvidenceError` NB-3240 where one that was cosigned is missing.
    """
    newest = await ledger.newest_checkpoint(tx)
    if newest is None:
        return None
    witnesses = [(each, await _cosigned(tx, each)) for each in await heads.newest_of_each(tx)]
    return Seen(
        newest=await _witnessed(tx, *newest),
        cosigned=max((shown for _, shown in witnesses), key=lambda each: each.size, default=None),
        witnesses=tuple(witnesses),
        peer=tuple(await heads.peer_heads(tx)),
    )


async def _cosigned(tx: Transaction, kept: Kept) -> Witnessed:
    """Return the checkpoint of ours that a cosignature is of."""
    found = await ledger.checkpoint_covering(tx, kept.size)
    if found is None or found[0] != kept.size:
        head = await ledger.head(tx)
        origin = "" if head is None else head.origin
        raise EvidenceError("NB-3240", name=kept.name, size=kept.size, origin=origin)
    return await _witnessed(tx, *found)


async def _witnessed(tx: Transaction, size: int, note: str) -> Witnessed:
    kept = await heads.cosignatures_of(tx, size)
    lines = [each.line for each in kept]
    return Witnessed(size=size, note=with_cosignatures(note, lines), cosignatures=tuple(kept))


def _due(own: Own, now: datetime) -> bool:
    """Return whether there is something to tell: a cosignature, growth, or that we live.

    Growth is told unless a head that told of some is under way: the peer's answer sets the pace,
    and one that is away for weeks finds a head for each hour of it, not for each second. A head
    that crossed the peer's answer, and was passed over there, is told again once that answer came;
    and what was told before we trusted the peer's newest keys, because the answer may have been
    made with these.
    """
    if own.owed is not None or own.told_at is None or now - own.told_at >= _SILENCE:
        return True
    under_way = own.told_since == own.since and own.told_size > own.since
    if own.trusted_at is not None and own.told_at < own.trusted_at:
        under_way = False
    return own.size > own.since and not under_way


async def take(
    tx: Transaction, agency: Agency, head: Head, attributes: Attributes, now: datetime
) -> None:
    """Take a head of the peer: cosign what it shows, keep its cosignature of ours.

    Raises `EvidenceError` NB-3050 to NB-3053 for notes that are not signed as they say.
    """
    checkpoint = verify_checkpoint(head.checkpoint, agency.directory.log_keys)
    known = await store.told_otherwise(
        tx,
        checkpoint.origin,
        checkpoint.size,
        head.checkpoint,
        generation=attributes.generation,
        sequence=attributes.sequence,
    )
    cosigned = await heads.peer_head(tx, checkpoint.origin)
    if known is None:
        await _witness(tx, agency, head, checkpoint, cosigned, now)
    else:
        # In doubt from the smaller of the two on, whichever came first; neither is cosigned.
        smaller = min(checkpoint, parse_checkpoint(known).checkpoint, key=lambda each: each.size)
        await conflicts.keep(tx, WENT_BACK, smaller, known=known, told=head.checkpoint, now=now)
    news = head.cosigned is None or await _keep_cosignatures(tx, agency, head.cosigned)
    # A head that only brings what is of no use here would be answered by another such, for ever.
    if known is None and cosigned is not None and news:
        await _owe_again(tx, agency, head, checkpoint, cosigned, now)
    if await ended.size_of(tx, checkpoint.origin) is not None:
        # Said before a restore: who said it has lost some of what it had read.
        return
    ours = f"{{{agency.name}.{agency.peer}."
    await heads.keep_peer_read(
        tx,
        [
            (stream, each.generation, each.sequence)
            for stream, each in sorted(head.highest.items())
            if stream.startswith(ours)
        ],
        now,
    )


async def _witness(
    tx: Transaction,
    agency: Agency,
    head: Head,
    checkpoint: Checkpoint,
    known: PeerHead | None,
    now: datetime,
) -> None:
    """Cosign a checkpoint that grew out of `known`, the one that we cosigned last."""
    size, root = (known.size, known.root) if known is not None else (0, EMPTY_ROOT)
    for other in await store.known_between(tx, checkpoint.origin, checkpoint.size, checkpoint.size):
        if other.root != checkpoint.root:
            told = head.checkpoint
            await conflicts.keep(tx, FORKED, checkpoint, known=other.note, told=told, now=now)
            return
    if known is not None and checkpoint.size == size:
        return
    if checkpoint.size < size or head.since != size:
        # Made before our last cosignature arrived there, or by a log that lost its end.
        log.info(
            "head does not build upon the last", origin=checkpoint.origin, size=checkpoint.size
        )
        return
    if not _grew(size, root, checkpoint, head):
        at = Checkpoint(checkpoint.origin, size, root)
        before = "" if known is None else known.note
        await conflicts.keep(tx, NOT_GROWN, at, known=before, told=head.checkpoint, now=now)
        return
    await heads.keep_peer_head(
        tx,
        PeerHead(
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=checkpoint.root,
            note=head.checkpoint,
            line="".join(cosign(checkpoint, each, now) for each in agency.ring.cosigners),
            cosigned_at=now,
            owed=True,
        ),
    )


async def _owe_again(
    tx: Transaction,
    agency: Agency,
    head: Head,
    checkpoint: Checkpoint,
    known: PeerHead,
    now: datetime,
) -> None:
    """Owe our newest cosignature again if the peer tells as if it had none, and ours was read.

    While heads of ours are under way, this one may only have crossed them; after an hour that
    excuses nothing any more.
    """
    if known.owed or head.since is None or not head.since < known.size <= checkpoint.size:
        return
    stream = stream_name(agency.name, agency.peer, Lane.CONTROL, 0)
    reached = head.highest.get(stream)
    read = reached is not None and await heads.read_all(
        tx, stream, generation=reached.generation, sequence=reached.sequence
    )
    if not read and now - known.cosigned_at < _SILENCE:
        return
    signers = agency.ring.cosigners
    lines = cosignatures(known.note + known.line, [cosigner(each) for each in signers])
    if len(lines) != len(signers):
        again = Checkpoint(known.origin, known.size, known.root)
        line = "".join(cosign(again, each, now) for each in signers)
        known = replace(known, line=line, cosigned_at=now)
    await heads.keep_peer_head(tx, replace(known, owed=True))
    log.info("cosignature owed again", origin=known.origin, size=known.size)


def _grew(size: int, root: bytes, checkpoint: Checkpoint, head: Head) -> bool:
    try:
        verify_consistency(
            old=size,
            old_root=root,
            new=checkpoint.size,
            new_root=checkpoint.root,
            proof=[unb64(each) for each in head.consistency],
        )
    except EvidenceError:
        return False
    return True


async def _keep_cosignatures(tx: Transaction, agency: Agency, note: str) -> bool:
    """Keep the peer's cosignature of a checkpoint that is ours; returns whether it is a new one.

    Raises `EvidenceError` NB-3024 for a checkpoint that is not ours.
    """
    checkpoint = parse_checkpoint(note).checkpoint
    if checkpoint.origin != agency.ring.log_key.name:
        # Of a log that a restore ended; its evidence is with the peer.
        return False
    root = await heads.root_of_own(tx, checkpoint.origin, checkpoint.size)
    if root != checkpoint.root:
        raise EvidenceError("NB-3024", size=checkpoint.size)
    kept = [
        await heads.keep_cosignature(
            tx,
            checkpoint.origin,
            Kept(
                size=checkpoint.size, name=each.verifier.name, line=each.line, cosigned_at=each.at
            ),
        )
        for each in cosignatures(note, agency.directory.cosigners)
    ]
    return any(kept)
