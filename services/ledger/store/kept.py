"""Logs that can be walked through in order to verify them: the one that grows, and former ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from psycopg.rows import class_row

from services.ledger.store import audit, log
from services.ledger.store.audit import Bare, Entry, Sealed, Totals
from services.ledger.store.connection import Store
from services.ledger.store.log import Head


class Kept(Protocol):
    """One log with its records, wherever it is kept; every method reads what is stored."""

    async def head(self) -> Head | None:
        """Return where the log ends, None before its first seal."""
        ...

    async def entries(self, *, first: int, end: int, limit: int) -> list[Entry]:
        """Return at most `limit` entries from index `first` on, below `end`."""
        ...

    async def records(self, *, first: int, end: int, limit: int) -> list[Bare]:
        """Return the bytes alone of at most `limit` entries from index `first` on, below `end`."""
        ...

    async def checkpoints(self, *, above: int, end: int, limit: int) -> list[Sealed]:
        """Return at most `limit` checkpoints of sizes above `above` up to `end`."""
        ...

    async def tiles(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return those of the wanted tiles (level, number) that are there."""
        ...

    async def counted(self) -> tuple[Totals, dict[int, int], int | None]:
        """Return totals, tiles by level, and the id of a record that belongs to no log."""
        ...

    async def unsealed(self) -> int:
        """Return how many records wait to be sealed into this log."""
        ...


@dataclass(frozen=True, slots=True)
class LiveLog:
    """The log that the sealer grows."""

    store: Store

    async def head(self) -> Head | None:
        """Return where the log ends now."""
        async with self.store.transaction() as tx:
            return await log.head(tx)

    async def entries(self, *, first: int, end: int, limit: int) -> list[Entry]:
        """Return entries in order."""
        async with self.store.transaction() as tx:
            return await audit.entries(tx, first=first, end=end, limit=limit)

    async def records(self, *, first: int, end: int, limit: int) -> list[Bare]:
        """Return records in order."""
        async with self.store.transaction() as tx:
            return await audit.records(tx, first=first, end=end, limit=limit)

    async def checkpoints(self, *, above: int, end: int, limit: int) -> list[Sealed]:
        """Return checkpoints, smallest first."""
        async with self.store.transaction() as tx:
            return await audit.checkpoints(tx, above=above, end=end, limit=limit)

    async def tiles(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return full tiles."""
        async with self.store.transaction() as tx:
            return await log.tiles(tx, wanted)

    async def counted(self) -> tuple[Totals, dict[int, int], int | None]:
        """Return counts of one moment, while the sealer may go on."""
        async with self.store.transaction(seconds=audit.WHOLE_LEDGER_SECONDS) as tx:
            await audit.hold_still(tx)
            return (
                await audit.totals(tx),
                await audit.tile_counts(tx),
                await audit.stray_record(tx),
            )

    async def unsealed(self) -> int:
        """Return how many records wait for the sealer."""
        async with self.store.transaction() as tx:
            return (await audit.totals(tx)).unsealed


_ENTRIES = """
SELECT e.record_index AS index, r.record, r.leaf, r.action, r.notice_id, r.message_id,
       r.recorded_at, o.opened
FROM former_entry AS e
LEFT JOIN LATERAL (SELECT * FROM record WHERE record_id = e.record_id LIMIT 1) AS r ON true
LEFT JOIN LATERAL (SELECT opened FROM opening WHERE record_id = e.record_id LIMIT 1) AS o ON true
WHERE e.origin = %s AND e.record_index >= %s AND e.record_index < %s
ORDER BY e.record_index LIMIT %s
"""

_COUNTED = """
SELECT (SELECT size FROM former_log WHERE origin = %(origin)s) AS size,
       (SELECT count(*) FROM former_entry WHERE origin = %(origin)s) AS entries,
       (SELECT coalesce(max(record_index) + 1, 0) FROM former_entry WHERE origin = %(origin)s)
           AS "end",
       (SELECT coalesce(max(size), 0) FROM former_checkpoint WHERE origin = %(origin)s)
           AS newest_checkpoint,
       0::bigint AS unsealed
"""


@dataclass(frozen=True, slots=True)
class FormerLog:
    """A log that a restore ended; `origin` names it."""

    store: Store
    origin: str

    async def head(self) -> Head | None:
        """Return where the log ended, None for one that is not kept here."""
        async with self.store.transaction() as tx:
            cursor = await tx.execute(
                "SELECT origin, size, frontier, root FROM former_log WHERE origin = %s",
                [self.origin],
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        return Head(origin=row[0], size=row[1], frontier=list(row[2]), root=row[3])

    async def entries(self, *, first: int, end: int, limit: int) -> list[Entry]:
        """Return entries in order."""
        async with (
            self.store.transaction() as tx,
            tx.cursor(row_factory=class_row(Entry), binary=True) as cursor,
        ):
            await cursor.execute(_ENTRIES, [self.origin, first, end, limit])
            return await cursor.fetchall()

    async def records(self, *, first: int, end: int, limit: int) -> list[Bare]:
        """Return records in order."""
        entries = await self.entries(first=first, end=end, limit=limit)
        return [Bare(entry.index, entry.record, entry.leaf) for entry in entries]

    async def checkpoints(self, *, above: int, end: int, limit: int) -> list[Sealed]:
        """Return checkpoints, smallest first."""
        async with (
            self.store.transaction() as tx,
            tx.cursor(row_factory=class_row(Sealed)) as cursor,
        ):
            await cursor.execute(
                "SELECT size, root, note FROM former_checkpoint"
                " WHERE origin = %s AND size > %s AND size <= %s ORDER BY size LIMIT %s",
                [self.origin, above, end, limit],
            )
            return await cursor.fetchall()

    async def tiles(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return full tiles."""
        async with self.store.transaction() as tx:
            cursor = await tx.execute(
                "SELECT level, n, hashes FROM former_tile WHERE origin = %s AND (level, n) IN"
                " (SELECT * FROM unnest(%b::smallint[], %b::bigint[]))",
                [self.origin, [level for level, _ in wanted], [n for _, n in wanted]],
            )
            return {(row[0], row[1]): row[2] for row in await cursor.fetchall()}

    async def counted(self) -> tuple[Totals, dict[int, int], int | None]:
        """Return counts; that each record is there, and in one log alone, is the live log's."""
        async with (
            self.store.transaction(seconds=audit.WHOLE_LEDGER_SECONDS) as tx,
            tx.cursor(row_factory=class_row(Totals)) as cursor,
        ):
            await audit.hold_still(tx)
            await cursor.execute(_COUNTED, {"origin": self.origin})
            (totals,) = await cursor.fetchall()
            tiles = await tx.execute(
                "SELECT level, count(*) FROM former_tile WHERE origin = %s GROUP BY level",
                [self.origin],
            )
            return totals, {row[0]: row[1] for row in await tiles.fetchall()}, None

    async def unsealed(self) -> int:
        """Return 0: it grows no more."""
        return 0
