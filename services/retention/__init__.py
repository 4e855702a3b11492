"""Erase what messages said once its retention is over; records, proofs and counts stay.

What is erased of a closed notice: its contents with their salts, the encrypted bytes of its
messages, which our own keys could still open, and the names and words that its records committed
to. What is still open is never touched: not closed, unanswered, held, set aside, not sealed yet.

Each batch is one transaction with its record, which names the policy version and the counts; an
interrupted run has erased whole notices and goes on when it is run again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

from schemas import codes
from schemas.canonical import b64_bytes, canonical, format_time, parse
from schemas.envelope import read
from schemas.errors import RejectedError
from services.ledger.records import make_record
from services.ledger.store import Store, append_returning
from services.retention import store as statements
from services.retention.store import Counts

NOTICES_A_BATCH = 200

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """How many notices are past their retention: closed, and nothing happened since `before`."""

    policy: str
    days: int
    before: datetime
    notices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What a run erased."""

    run_id: UUID
    policy: str
    before: datetime
    counts: Counts


async def due(store: Store, agency: str, *, now: datetime | None = None) -> Due:
    """Return what a run would erase now; changes nothing."""
    policy = codes.policy()
    days = policy.retention_days[agency]
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    async with store.transaction(seconds=statements.PASS_SECONDS) as tx:
        found = await statements.over(tx, agency, before=before, limit=None)
    return Due(policy=policy.version, days=days, before=before, notices=len(found))


async def erase(
    store: Store,
    agency: str,
    found: Due,
    *,
    actor: str,
    reason: str,
    now: datetime | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Erased:
    """Erase what `found` counted, batch by batch, each with its record."""
    run_id = uuid7()
    total = Counts()
    while batch := await _batch(
        store, agency, found, run_id, actor=actor, reason=reason, now=now or datetime.now(UTC)
    ):
        total = total.plus(batch)
        progress(total.notices, found.notices)
    return Erased(run_id=run_id, policy=found.policy, before=found.before, counts=total)


async def _batch(
    store: Store,
    agency: str,
    found: Due,
    run_id: UUID,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> Counts | None:
    erasure_id = uuid7()
    async with store.transaction(seconds=statements.PASS_SECONDS) as tx:
        notices = await statements.over(tx, agency, before=found.before, limit=NOTICES_A_BATCH)
        if not notices:
            return None
        bytes_kept = await statements.envelopes(tx, notices)
        counts = await statements.erase(
            tx,
            agency,
            erasure_id,
            notices=notices,
            left={message_id: emptied(jws) for message_id, jws in bytes_kept},
            now=now,
        )
        record = make_record(
            "content.erased",
            time=now,
            policy=found.policy,
            actor=actor,
            text=reason,
            detail={
                "run": str(run_id),
                "erasure": str(erasure_id),
                "before": format_time(found.before),
                **counts.said(),
            },
        )
        (record_id,) = await append_returning(tx, [record])
        await statements.keep(
            tx, erasure_id, run_id=run_id, record_id=record_id, policy=found.policy, now=now,
            counts=counts,
        )  # fmt: skip
    return counts


def emptied(jws: bytes) -> bytes:
    """Return an envelope without its content: header, attributes with empty data, signature.

    The signature holds over the hash of what it was, which records and receipts name. Raises
    `RejectedError` for what is no envelope.
    """
    header, _, signature = jws.split(b".")
    members = parse(read(jws).payload)
    if not isinstance(members, dict) or not isinstance(members.get("data"), str):
        raise RejectedError("NB-2007", rule="only encrypted content is erased")
    return b".".join((header, b64_bytes(canonical({**members, "data": ""})), signature))
