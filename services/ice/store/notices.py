"""Statements about notices as people see them: rows of the view `notice`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from services.exchange.beginnings import Beginning
from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeView:
    """One row of the view `notice`; `a_number` is whole here and masked by whoever shows it."""

    notice_id: UUID
    revision: int
    notice_kind: str
    reason_code: str | None
    outcome: str
    state: str
    confirm: str | None
    confirm_code: str | None
    office: str
    base_city: str
    a_number: str
    hearing_at: datetime
    hearing_zone: str
    lane: str
    origin: str
    release: str | None
    eoir_case_key: int | None
    eoir_proceeding_key: int | None
    eoir_schedule_key: int | None
    detected_at: datetime
    recorded_at: datetime | None
    sent_at: datetime | None
    overdue_at: datetime | None
    receipt_at: datetime | None
    acknowledged_at: datetime | None
    closed_at: datetime | None
    outcome_code: str | None
    answer_code: str | None
    message_id: UUID | None


_COLUMNS = ", ".join(NoticeView.__dataclass_fields__)

# A page of notices, oldest first: ids grow with time.
_PAGE = f"""
SELECT {_COLUMNS} FROM notice
WHERE (%(after)s::uuid IS NULL OR notice_id > %(after)s)
  AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
  AND (%(office)s::text IS NULL OR office = %(office)s)
  AND (%(lane)s::text IS NULL OR lane = %(lane)s)
  AND (%(since)s::timestamptz IS NULL OR detected_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR detected_at < %(until)s)
ORDER BY notice_id LIMIT %(limit)s
"""  # noqa: S608 - a constant list of columns


async def page(
    tx: Transaction,
    *,
    states: Sequence[str] | None = None,
    office: str | None = None,
    lane: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: UUID | None = None,
    limit: int,
) -> list[NoticeView]:
    """Return up to `limit` notices after this id."""
    async with tx.cursor(row_factory=class_row(NoticeView)) as cursor:
        await cursor.execute(
            _PAGE,
            {
                "states": None if states is None else list(states),
                "office": office,
                "lane": lane,
                "since": since,
                "until": until,
                "after": after,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def one(tx: Transaction, notice_id: UUID) -> NoticeView | None:
    """Return one notice."""
    async with tx.cursor(row_factory=class_row(NoticeView)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM notice WHERE notice_id = %s",  # noqa: S608 - see above
            [notice_id],
        )
        return await cursor.fetchone()


async def named(tx: Transaction, begins: Beginning) -> list[UUID]:
    """Return the notices whose id begins so, at most three."""
    cursor = await tx.execute(
        "SELECT notice_id FROM obligation WHERE notice_id BETWEEN %s AND %s"
        " ORDER BY notice_id LIMIT 3",
        begins,
    )
    return [row[0] for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasRow:
    """A further key under which the court knows the hearing."""

    kind: str
    key: int


async def aliases(tx: Transaction, notice_id: UUID) -> list[AliasRow]:
    """Return the further keys of a hearing."""
    async with tx.cursor(row_factory=class_row(AliasRow)) as cursor:
        await cursor.execute(
            "SELECT kind, key FROM alias WHERE notice_id = %s ORDER BY kind, key", [notice_id]
        )
        return await cursor.fetchall()
