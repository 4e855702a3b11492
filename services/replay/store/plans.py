"""Statements about plans: made, approved, begun, run, paused, cancelled."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from services.exchange.beginnings import Beginning
from services.ledger.store import Transaction
from services.replay.places import Target
from services.replay.plans import Counts, Plan, State
from services.replay.selection import Selection
from services.replay.store.messages import Cursor

_KEEP = """
INSERT INTO replay_plan (plan_id, state, source, target, selection, store_id, source_digest,
                         target_digest, counts, offices, made_at, expires_at, made_by,
                         approval_above)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


async def keep(tx: Transaction, plan: Plan) -> None:
    """Keep a plan that was made."""
    await tx.execute(
        _KEEP,
        [
            plan.plan_id,
            plan.state,
            plan.source,
            str(plan.target),
            Jsonb(plan.selection.written()),
            plan.store_id,
            plan.source_digest,
            plan.target_digest,
            Jsonb(asdict(plan.counts)),
            Jsonb({office: asdict(counts) for office, counts in plan.offices.items()}),
            plan.made_at,
            plan.expires_at,
            plan.made_by,
            plan.approval_above,
        ],
    )


# How many messages of a run one row names.
_FROZEN = 10_000
_COLUMNS = (
    "plan_id, state, source, target, selection, store_id, source_digest, target_digest, counts,"
    " offices, made_at, expires_at, made_by, approval_above, approved_by, approved_at, begun_at,"
    " ran_at, done, written"
)
_NAMED = f"SELECT {_COLUMNS} FROM replay_plan WHERE plan_id BETWEEN %s AND %s LIMIT 3"  # noqa: S608 - constants


async def named(tx: Transaction, begins: Beginning) -> list[Plan]:
    """Return the plans whose id begins so, at most three."""
    async with tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_NAMED, begins)
        return [_plan(row) for row in await cursor.fetchall()]


async def hold(tx: Transaction, plan_id: UUID) -> Plan:
    """Return a plan as it stands now, and keep it so until the transaction ends."""
    async with tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM replay_plan WHERE plan_id = %s FOR UPDATE",  # noqa: S608 - constants
            [plan_id],
        )
        (row,) = await cursor.fetchall()
        return _plan(row)


# As `Plan.stands` says it: one whose hour is over before it ran stays `planned` in its row.
_LISTED = f"""
SELECT {_COLUMNS} FROM replay_plan
WHERE %(states)s::text[] IS NULL
   OR CASE WHEN state = 'planned' AND expires_at <= %(now)s THEN 'expired' ELSE state END
      = ANY(%(states)s::text[])
ORDER BY made_at DESC, plan_id DESC LIMIT %(limit)s
"""  # noqa: S608 - constants


async def listed(tx: Transaction, states: Sequence[State], limit: int, now: datetime) -> list[Plan]:
    """Return plans, newest first, of some states or of all."""
    async with tx.cursor(row_factory=dict_row) as cursor:
        chosen = [str(state) for state in states] or None
        await cursor.execute(_LISTED, {"states": chosen, "limit": limit, "now": now})
        return [_plan(row) for row in await cursor.fetchall()]


def _plan(row: dict[str, Any]) -> Plan:
    row |= {
        "state": State(row["state"]),
        "target": Target.of(row["target"]),
        "selection": Selection.read(row["selection"]),
        "counts": Counts(**row["counts"]),
        "offices": {office: Counts(**each) for office, each in row["offices"].items()},
        "done": Counts(**(row["done"] or {})),
    }
    return Plan(**row)


async def approve(tx: Transaction, plan_id: UUID, actor: str, now: datetime) -> None:
    """Note who approved a plan that the caller holds."""
    await tx.execute(
        "UPDATE replay_plan SET approved_by = %s, approved_at = %s WHERE plan_id = %s",
        [actor, now, plan_id],
    )


# A place that keeps nothing is written anew, from the beginning.
_BEGIN = """
UPDATE replay_plan
SET state = 'running', begun_at = coalesce(begun_at, %(now)s),
    cursor = CASE WHEN %(keeps)s THEN cursor END, done = CASE WHEN %(keeps)s THEN done END,
    written = CASE WHEN %(keeps)s THEN written ELSE 0 END
WHERE plan_id = %(plan_id)s
"""


async def begin(tx: Transaction, plan: Plan, now: datetime) -> None:
    """Note that a run of a plan that the caller holds has begun, or goes on."""
    await tx.execute(_BEGIN, {"now": now, "plan_id": plan.plan_id, "keeps": plan.target.keeps})


async def freeze(tx: Transaction, plan_id: UUID, messages: bytes | bytearray) -> None:
    """Keep which messages a run is of, in their order: their ids, 16 bytes each."""
    await thaw(tx, plan_id)
    # One of no message is kept too: it must not come to have some.
    for first in range(0, max(1, len(messages)), 16 * _FROZEN):
        some = messages[first : first + 16 * _FROZEN]
        ids = [UUID(bytes=bytes(some[at : at + 16])) for at in range(0, len(some), 16)]
        await tx.execute(
            "INSERT INTO replay_planned (plan_id, position, message_ids) VALUES (%s, %s, %b)",
            [plan_id, first // 16, ids],
        )


async def thaw(tx: Transaction, plan_id: UUID) -> None:
    """Forget which messages a run is of: it has ended."""
    await tx.execute("DELETE FROM replay_planned WHERE plan_id = %s", [plan_id])


async def is_frozen(tx: Transaction, plan_id: UUID) -> bool:
    """Say whether it is kept which messages a run is of; an earlier build did not."""
    cursor = await tx.execute(
        "SELECT EXISTS (SELECT FROM replay_planned WHERE plan_id = %s)", [plan_id]
    )
    (row,) = await cursor.fetchall()
    return bool(row[0])


async def how_far(tx: Transaction, plan_id: UUID) -> tuple[Cursor | None, Counts, int]:
    """Return how far a run has come, what it did, and how many entries it wrote."""
    cursor = await tx.execute(
        "SELECT cursor, done, written FROM replay_plan WHERE plan_id = %s", [plan_id]
    )
    (row,) = await cursor.fetchall()
    if row[0] is None:
        return None, Counts(), 0
    return Cursor.read(row[0]), Counts(**row[1]), row[2]


# Only from where it stood: two runs of one plan can never both go on. A batch that was under way
# when somebody paused or cancelled its run is noted, because its effect is there.
_ADVANCE = """
UPDATE replay_plan SET cursor = %(cursor)s, done = %(done)s, written = %(written)s
WHERE plan_id = %(plan_id)s AND state IN ('running', 'paused', 'cancelled')
  AND cursor IS NOT DISTINCT FROM %(before)s
RETURNING state
"""


async def advance(
    tx: Transaction,
    plan_id: UUID,
    *,
    before: Cursor | None,
    cursor: Cursor,
    done: Counts,
    written: int,
) -> State | None:
    """Note how far a run has come; returns `running`, or how somebody stopped it.

    None when it no longer stands at `before`: then nothing was noted.
    """
    moved = await tx.execute(
        _ADVANCE,
        {
            "plan_id": plan_id,
            "cursor": Jsonb(cursor.written()),
            "done": Jsonb(asdict(done)),
            "written": written,
            "before": Jsonb(before.written()) if before else None,
        },
    )
    row = await moved.fetchone()
    return None if row is None else State(row[0])


async def finish(tx: Transaction, plan_id: UUID, done: Counts, written: int, now: datetime) -> None:
    """Note that a run of a plan that the caller holds has ended, with what it did."""
    await thaw(tx, plan_id)
    await tx.execute(
        "UPDATE replay_plan SET state = 'done', done = %s, written = %s, ran_at = %s"
        " WHERE plan_id = %s",
        [Jsonb(asdict(done)), written, now, plan_id],
    )


async def stand(tx: Transaction, plan_id: UUID, state: State) -> None:
    """Note that a plan that the caller holds stands still, or will never run."""
    await tx.execute("UPDATE replay_plan SET state = %s WHERE plan_id = %s", [state, plan_id])
