"""Statements of replay: recorded messages in their order, what they said, and plans."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from schemas.envelope import CONTROL_KINDS, Kind
from services.exchange.recorded import Direction, Recorded
from services.ledger.store import Transaction
from services.replay.selection import Counts, Plan, Selection, Target

PASS_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the order of a selection: that of one message."""

    place: datetime
    revision: int
    direction: str
    message_id: UUID

    def written(self) -> list[str]:
        """Return what `read` takes."""
        return [self.place.isoformat(), str(self.revision), self.direction, str(self.message_id)]

    @classmethod
    def read(cls, said: Sequence[str]) -> "Cursor":
        """Return the place that was written."""
        place, revision, direction, message_id = said
        return cls(datetime.fromisoformat(place), int(revision), direction, UUID(message_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the store has of one message; `kept` says that a payload row is there."""

    kept: bool
    salt: bytes | None
    body: bytes | None
    erased: bool
    envelope: bytes | None


async def begin_pass(tx: Transaction) -> None:
    """Let a transaction see the store as it is now until it ends; must be its first statement.

    It writes nothing, and may wait for as long as who reads what it yields.
    """
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    await tx.execute("SET LOCAL idle_in_transaction_session_timeout = '1h'")


# Messages in order of time. Within a notice the revision decides: one that overtook an earlier one
# comes where the last of those before it came. When a message was taken is what its record says,
# because one that was refused first has an older inbox row.
_RECORDED = """
SELECT message_id, direction, kind, notice_id, revision, stream, generation, sequence,
       envelope_hash, at, place
FROM (
    SELECT *, max(at) OVER (
        PARTITION BY direction, coalesce(notice_id, message_id) ORDER BY revision
    ) AS place
    FROM (
        SELECT i.message_id, 'received' AS direction, i.kind, i.notice_id, i.revision, i.stream,
               i.generation, i.sequence, i.envelope_hash,
               coalesce(r.recorded_at, i.received_at) AS at
        FROM inbox AS i LEFT JOIN record AS r USING (record_id)
        WHERE i.state = 'applied'
        UNION ALL
        SELECT message_id, 'sent', kind, notice_id, revision, stream, generation, sequence,
               envelope_hash, sequenced_at
        FROM sent
        WHERE kind <> ALL(%(control)s)
    ) AS message
    WHERE (%(since)s::timestamptz IS NULL OR at >= %(since)s) AND at < %(until)s
      AND (%(notice_id)s::uuid IS NULL OR notice_id = %(notice_id)s)
) AS placed
WHERE %(place)s::timestamptz IS NULL
   OR (place, coalesce(revision, 0), direction, message_id)
      > (%(place)s, %(revision)s::int, %(direction)s::text, %(message_id)s::uuid)
ORDER BY place, coalesce(revision, 0), direction, message_id
"""


async def recorded(
    tx: Transaction, selection: Selection, *, after: Cursor | None, batch_max: int
) -> AsyncIterator[tuple[list[Recorded], Cursor]]:
    """Yield selected messages in batches, in order, each with the place of its last one."""
    place = asdict(after) if after else dict.fromkeys(Cursor.__dataclass_fields__)
    asked = {**place, **asdict(selection), "control": sorted(CONTROL_KINDS)}
    async with tx.cursor(name="replay", row_factory=dict_row) as cursor:
        await cursor.execute(_RECORDED, asked)
        while rows := await cursor.fetchmany(batch_max):
            last = rows[-1]
            yield (
                [_message(row) for row in rows],
                Cursor(last["place"], last["revision"] or 0, last["direction"], last["message_id"]),
            )


def _message(row: dict[str, Any]) -> Recorded:
    said = {name: row[name] for name in Recorded.__dataclass_fields__}
    said |= {"direction": Direction(said["direction"]), "kind": Kind(said["kind"])}
    return Recorded(**said)


_STORED = """
SELECT m.message_id, p.message_id IS NOT NULL, p.salt, p.body, p.erased_at IS NOT NULL, e.envelope
FROM unnest(%b::uuid[]) AS m (message_id)
LEFT JOIN payload AS p USING (message_id)
LEFT JOIN envelope AS e USING (message_id)
"""


async def stored(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, Stored]:
    """Return what the store has of each of these messages."""
    async with tx.cursor(binary=True) as cursor:
        await cursor.execute(_STORED, [list(messages)])
        return {
            row[0]: Stored(kept=row[1], salt=row[2], body=row[3], erased=row[4], envelope=row[5])
            for row in await cursor.fetchall()
        }


_NOTICES = """
SELECT DISTINCT notice_id FROM (
    SELECT notice_id FROM inbox UNION ALL SELECT notice_id FROM sent
) AS message
WHERE notice_id::text LIKE %s || '%%'
LIMIT 3
"""


async def notices(tx: Transaction, prefix: str) -> list[UUID]:
    """Return notices that messages are about and whose id starts so, at most three."""
    return [row[0] for row in await (await tx.execute(_NOTICES, [prefix])).fetchall()]


async def keep_plan(tx: Transaction, plan: Plan) -> None:
    """Keep a plan that was made."""
    await tx.execute(
        "INSERT INTO replay_plan (plan_id, state, target, since, until, notice_id, source_digest,"
        " target_digest, counts, made_at, expires_at, made_by)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            plan.plan_id,
            plan.state,
            str(plan.target),
            plan.selection.since,
            plan.selection.until,
            plan.selection.notice_id,
            plan.source_digest,
            plan.target_digest,
            Jsonb(asdict(plan.counts)),
            plan.made_at,
            plan.expires_at,
            plan.made_by,
        ],
    )


_PLANS = """
SELECT plan_id, state, target, since, until, notice_id, source_digest, target_digest, counts,
       made_at, expires_at, made_by, ran_at
FROM replay_plan
WHERE plan_id::text LIKE %s || '%%'
LIMIT 3
"""


async def plans(tx: Transaction, prefix: str) -> list[Plan]:
    """Return the plans whose id starts so, at most three."""
    async with tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_PLANS, [prefix])
        return [_plan(row) for row in await cursor.fetchall()]


def _plan(row: dict[str, Any]) -> Plan:
    chosen = {name: row.pop(name) for name in Selection.__dataclass_fields__}
    row |= {"target": Target.of(row["target"]), "counts": Counts(**row["counts"])}
    return Plan(selection=Selection(**chosen), **row)


async def begin(tx: Transaction, plan_id: UUID, now: datetime) -> None:
    """Note that a run has begun, or goes on."""
    await tx.execute(
        "UPDATE replay_plan SET state = 'running', begun_at = coalesce(begun_at, %s)"
        " WHERE plan_id = %s",
        [now, plan_id],
    )


async def how_far(tx: Transaction, plan_id: UUID) -> tuple[Cursor | None, Counts]:
    """Return how far a run has come, and what it did."""
    cursor = await tx.execute("SELECT cursor, done FROM replay_plan WHERE plan_id = %s", [plan_id])
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return None, Counts()
    return Cursor.read(row[0]), Counts(**row[1])


# Only from where it stood: two runs of one plan can never both go on.
_ADVANCE = """
UPDATE replay_plan SET cursor = %(cursor)s, done = %(done)s
WHERE plan_id = %(plan_id)s AND state = 'running' AND cursor IS NOT DISTINCT FROM %(before)s
"""


async def advance(
    tx: Transaction, plan_id: UUID, *, before: Cursor | None, cursor: Cursor, done: Counts
) -> bool:
    """Note how far a run has come; False when it no longer stands at `before`."""
    moved = await tx.execute(
        _ADVANCE,
        {
            "plan_id": plan_id,
            "cursor": Jsonb(cursor.written()),
            "done": Jsonb(asdict(done)),
            "before": Jsonb(before.written()) if before else None,
        },
    )
    return moved.rowcount == 1


async def finish(tx: Transaction, plan_id: UUID, done: Counts, now: datetime) -> None:
    """Note that a run has ended, with what it did."""
    await tx.execute(
        "UPDATE replay_plan SET state = 'done', done = %s, ran_at = %s WHERE plan_id = %s",
        [Jsonb(asdict(done)), now, plan_id],
    )
