"""Statements about heads and cosignatures: side tables, of which no record tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What there is to tell: our newest checkpoint, what was told, and the cosignature we owe.

    `since` is the newest size that the witness cosigned, 0 for none, and `told_since` what it was
    in the last head; `owed` is the peer's note with our line under it. `told_since` and `told_at`
    are None before the first head of this log. The peer's newest party file was `trusted_at`.
    """

    origin: str
    size: int
    note: str
    since: int
    told_size: int
    told_since: int | None
    told_at: datetime | None
    owed: str | None
    trusted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerHead:
    """The newest checkpoint of a log of the peer that we cosigned."""

    origin: str
    size: int
    root: bytes
    note: str
    line: str
    cosigned_at: datetime
    owed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One cosignature of a checkpoint of ours; `vkey` is that of a third witness, else None."""

    size: int
    name: str
    line: str
    cosigned_at: datetime
    vkey: str | None = None


_OWN = """
SELECT h.origin, c.size, c.note,
       coalesce((SELECT max(s.size) FROM cosignature AS s
                 WHERE s.origin = h.origin AND s.name = %(witness)s AND s.size <= c.size), 0),
       coalesce(t.size, 0), t.since, t.told_at,
       (SELECT p.note || p.line FROM peer_head AS p WHERE p.owed
        ORDER BY p.cosigned_at DESC LIMIT 1),
       (SELECT max(trusted_at) FROM party WHERE agency = %(peer)s)
FROM log_head AS h
JOIN anchored AS a ON a.origin = h.origin
JOIN LATERAL (SELECT size, note FROM checkpoint
              WHERE size <= a.size ORDER BY size DESC LIMIT 1) AS c ON true
LEFT JOIN head_told AS t ON t.origin = h.origin
"""


async def own(tx: Transaction, *, witness: str, peer: str) -> Own | None:
    """Return what there is to tell to `witness`, None before a checkpoint of ours is anchored."""
    row = await (await tx.execute(_OWN, {"witness": witness, "peer": peer})).fetchone()
    if row is None:
        return None
    return Own(
        origin=row[0],
        size=row[1],
        note=row[2],
        since=row[3],
        told_size=row[4],
        told_since=row[5],
        told_at=row[6],
        owed=row[7],
        trusted_at=row[8],
    )


# Up to here nothing is missing: the highest that arrived, or what comes before the first gap.
_READ = """
SELECT i.stream, i.generation,
       coalesce((SELECT min(g.first_sequence) - 1 FROM gap AS g
                 WHERE g.stream = i.stream AND g.generation = i.generation), i.highest)
FROM stream_in AS i
JOIN (SELECT stream, max(generation) AS generation FROM stream_in GROUP BY stream) AS newest
     USING (stream, generation)
"""


async def read_without_gap(tx: Transaction) -> dict[str, tuple[int, int]]:
    """Return newest generation and highest sequence without a gap of each stream that we read."""
    return {row[0]: (row[1], row[2]) for row in await (await tx.execute(_READ)).fetchall()}


async def told(
    tx: Transaction, *, origin: str, size: int, since: int, now: datetime, owed: str | None = None
) -> None:
    """Note that a head was put into the outbox, with the cosignature `owed`.

    One that came up since it was looked for stays owed.
    """
    await tx.execute(
        "INSERT INTO head_told (origin, size, since, told_at)"
        " VALUES (%(origin)s, %(size)s, %(since)s, %(now)s)"
        " ON CONFLICT (singleton) DO UPDATE SET origin = EXCLUDED.origin, size = EXCLUDED.size,"
        " since = EXCLUDED.since, told_at = EXCLUDED.told_at",
        {"origin": origin, "size": size, "since": since, "now": now},
    )
    if owed is not None:
        await tx.execute(
            "UPDATE peer_head SET owed = false WHERE owed AND note || line = %s", [owed]
        )


async def tell_anew(tx: Transaction) -> None:
    """Owe the newest cosignature again, and take our growth for untold: heads were lost."""
    await tx.execute(
        "UPDATE peer_head SET owed = true"
        " WHERE cosigned_at = (SELECT max(cosigned_at) FROM peer_head)"
    )
    await tx.execute("DELETE FROM head_told")


# One that has no sequence yet cannot have been read.
_READ_ALL = """
SELECT NOT EXISTS (SELECT FROM outbox WHERE stream = %(stream)s AND kind = 'head')
   AND coalesce((SELECT (generation, sequence) <= (%(generation)s, %(sequence)s)
                 FROM sent WHERE stream = %(stream)s AND kind = 'head'
                 ORDER BY generation DESC, sequence DESC LIMIT 1), true)
"""


async def read_all(tx: Transaction, stream: str, *, generation: int, sequence: int) -> bool:
    """Return whether who read `stream` up to this place has read every head that we told."""
    values = {"stream": stream, "generation": generation, "sequence": sequence}
    row = await (await tx.execute(_READ_ALL, values)).fetchone()
    return bool(row and row[0])


async def peer_head(tx: Transaction, origin: str) -> PeerHead | None:
    """Return the newest cosigned head of a log of the peer, its row held."""
    cursor = await tx.execute(
        "SELECT origin, size, root, note, line, cosigned_at, owed FROM peer_head"
        " WHERE origin = %s FOR UPDATE",
        [origin],
    )
    row = await cursor.fetchone()
    return None if row is None else _peer_head(row)


async def peer_heads(tx: Transaction) -> list[PeerHead]:
    """Return the newest cosigned head of each log of the peer, the latest last."""
    cursor = await tx.execute(
        "SELECT origin, size, root, note, line, cosigned_at, owed FROM peer_head"
        " ORDER BY cosigned_at"
    )
    return [_peer_head(row) for row in await cursor.fetchall()]


def _peer_head(row: Sequence[object]) -> PeerHead:
    return PeerHead(**dict(zip(PeerHead.__dataclass_fields__, row, strict=True)))  # type: ignore[arg-type]  # rows are untyped at the driver's border


_KEEP_PEER_HEAD = """
INSERT INTO peer_head (origin, size, root, note, line, cosigned_at, owed)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (origin) DO UPDATE
    SET size = EXCLUDED.size, root = EXCLUDED.root, note = EXCLUDED.note, line = EXCLUDED.line,
        cosigned_at = EXCLUDED.cosigned_at, owed = EXCLUDED.owed
"""


async def keep_peer_head(tx: Transaction, head: PeerHead) -> None:
    """Keep the newest head of a log of the peer."""
    await tx.execute(
        _KEEP_PEER_HEAD,
        [
            head.origin,
            head.size,
            head.root,
            head.note,
            head.line,
            head.cosigned_at,
            head.owed,
        ],
    )


async def root_of_own(tx: Transaction, origin: str, size: int) -> bytes | None:
    """Return the root of our checkpoint of this size, None where there is none."""
    cursor = await tx.execute(
        "SELECT c.root FROM checkpoint AS c, log_head AS h WHERE h.origin = %s AND c.size = %s",
        [origin, size],
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])


async def keep_cosignature(tx: Transaction, origin: str, kept: Kept) -> bool:
    """Keep a cosignature of a checkpoint of ours, if it is the first of its witness; else False."""
    cursor = await tx.execute(
        "INSERT INTO cosignature (origin, size, name, line, cosigned_at, vkey)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING TRUE",
        [origin, kept.size, kept.name, kept.line, kept.cosigned_at, kept.vkey],
    )
    return await cursor.fetchone() is not None


_COSIGNED = """
SELECT s.size, s.name, s.line, s.cosigned_at, s.vkey
FROM cosignature AS s JOIN log_head AS h USING (origin)
WHERE s.size = %(size)s ORDER BY s.name
"""
# How far each witness has seen our log.
_NEWEST_OF_EACH = """
SELECT DISTINCT ON (s.name) s.size, s.name, s.line, s.cosigned_at, s.vkey
FROM cosignature AS s JOIN log_head AS h USING (origin)
ORDER BY s.name, s.size DESC
"""
_NEWEST_BY = """
SELECT s.size, s.name, s.line, s.cosigned_at, s.vkey
FROM cosignature AS s
WHERE s.origin = (SELECT origin FROM log_head) AND s.name = %(name)s
ORDER BY s.size DESC LIMIT 1
"""


# A cosignature tells whole seconds: the one in which the time lies counts as after it.
_COSIGNED_BEFORE = """
SELECT s.size, s.name, s.line, s.cosigned_at, s.vkey
FROM cosignature AS s JOIN log_head AS h USING (origin)
WHERE s.name = %(name)s AND s.cosigned_at < date_trunc('second', %(before)s::timestamptz)
ORDER BY s.size DESC LIMIT 1
"""


async def cosignatures_of(tx: Transaction, size: int) -> list[Kept]:
    """Return the cosignatures of our checkpoint of this size."""
    async with tx.cursor(row_factory=class_row(Kept)) as cursor:
        await cursor.execute(_COSIGNED, {"size": size})
        return await cursor.fetchall()


async def newest_of_each(tx: Transaction) -> list[Kept]:
    """Return the newest cosignature of our log by each witness."""
    async with tx.cursor(row_factory=class_row(Kept)) as cursor:
        await cursor.execute(_NEWEST_OF_EACH)
        return await cursor.fetchall()


async def newest_by(tx: Transaction, name: str) -> Kept | None:
    """Return the newest cosignature of our log by this witness."""
    async with tx.cursor(row_factory=class_row(Kept)) as cursor:
        await cursor.execute(_NEWEST_BY, {"name": name})
        return await cursor.fetchone()


async def cosigned_before(tx: Transaction, name: str, times: Sequence[datetime]) -> list[Kept]:
    """Return the newest cosignature of our log by `name` before each of these times."""
    found = []
    for each in times:
        async with tx.cursor(row_factory=class_row(Kept)) as cursor:
            await cursor.execute(_COSIGNED_BEFORE, {"name": name, "before": each})
            found += await cursor.fetchall()
    return found


# The newest that was cosigned of what is no larger than a size, and the first that is.
_COSIGNED_UP_TO = """
SELECT s.size, s.name, s.line, s.cosigned_at, s.vkey
FROM cosignature AS s JOIN log_head AS h USING (origin)
WHERE s.name = %(name)s AND s.size <= %(size)s
ORDER BY s.size DESC LIMIT 1
"""
_COSIGNED_OVER = """
SELECT s.size, s.name, s.line, s.cosigned_at, s.vkey
FROM cosignature AS s JOIN log_head AS h USING (origin)
WHERE s.name = %(name)s AND s.size > %(index)s
ORDER BY s.size LIMIT 1
"""


async def cosigned_up_to(tx: Transaction, name: str, sizes: Sequence[int]) -> list[Kept]:
    """Return the newest cosignature of our log by `name` up to each of these sizes."""
    found = []
    for each in sizes:
        async with tx.cursor(row_factory=class_row(Kept)) as cursor:
            await cursor.execute(_COSIGNED_UP_TO, {"name": name, "size": each})
            found += await cursor.fetchall()
    return found


async def cosigned_over(tx: Transaction, name: str, index: int) -> Kept | None:
    """Return the first cosignature of our log by `name` that covers the record at `index`."""
    async with tx.cursor(row_factory=class_row(Kept)) as cursor:
        await cursor.execute(_COSIGNED_OVER, {"name": name, "index": index})
        return await cursor.fetchone()


async def not_cosigned_since(tx: Transaction, size: int) -> datetime | None:
    """Return when the first checkpoint above a size was sealed, None without one."""
    cursor = await tx.execute(
        "SELECT sealed_at FROM checkpoint AS c WHERE c.size > %s ORDER BY c.size LIMIT 1", [size]
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def keep_peer_read(
    tx: Transaction, reached: Sequence[tuple[str, int, int]], now: datetime
) -> None:
    """Keep how far the peer read our streams: (stream, generation, highest without a gap).

    What it read it has read: a head that comes late, or is redriven, moves nothing back.
    """
    await tx.execute(
        "INSERT INTO peer_read (stream, generation, highest, told_at)"
        " SELECT *, %s FROM unnest(%b::text[], %b::int[], %b::bigint[])"
        " ON CONFLICT (stream, generation) DO UPDATE"
        " SET highest = EXCLUDED.highest, told_at = EXCLUDED.told_at"
        " WHERE EXCLUDED.highest >= peer_read.highest",
        [now, [r[0] for r in reached], [r[1] for r in reached], [r[2] for r in reached]],
    )


async def forget_peer_read(tx: Transaction) -> None:
    """Forget how far the peer read: its store was restored, and its next head says it anew."""
    await tx.execute("DELETE FROM peer_read")


_COSIGNED_NOTES = """
SELECT s.size, c.note, s.line
FROM cosignature AS s
JOIN log_head AS h ON h.origin = s.origin
JOIN checkpoint AS c ON c.size = s.size
WHERE %(former)s::text IS NULL
UNION ALL
SELECT s.size, c.note, s.line
FROM cosignature AS s JOIN former_checkpoint AS c USING (origin, size)
WHERE s.origin = %(former)s
"""


async def cosigned_notes(tx: Transaction, former: str | None) -> list[tuple[int, str, str]]:
    """Return (size, note, cosignature) of cosigned checkpoints, of a former log by its name."""
    cursor = await tx.execute(_COSIGNED_NOTES, {"former": former})
    return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]
