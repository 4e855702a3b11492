"""Statements about obligations: opened once for each missed hearing, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from psycopg import DataError, Error, IntegrityError
from psycopg.rows import class_row

from services.ledger.store import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObligation:
    """A missed hearing as it is first written; `content_id` while a person has to confirm."""

    notice_id: UUID
    a_number: str
    base_city: str
    hearing_on: date
    hearing_at: datetime
    hearing_zone: str
    outcome: str
    office: str
    lane: str
    state: str
    confirm: str | None
    confirm_code: str | None
    revision: int
    detected_at: datetime
    origin: str
    release: str | None
    eoir_case_key: int | None
    eoir_proceeding_key: int | None
    eoir_schedule_key: int | None
    content_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """A missed hearing as it stands; `message_id` is the newest revision's.

    `content` is what a notice would say until one is sent, None once it was erased.
    """

    notice_id: UUID
    a_number: str
    base_city: str
    hearing_on: date
    outcome: str
    office: str
    lane: str
    state: str
    confirm: str | None
    confirm_code: str | None
    kept_codes: list[str]
    revision: int
    origin: str
    release: str | None
    eoir_case_key: int | None
    eoir_proceeding_key: int | None
    eoir_schedule_key: int | None
    content: bytes | None
    message_id: UUID | None

    @property
    def withdrawn(self) -> bool:
        """Whether its newest revision is a withdrawal, also while a person is asked to undo it."""
        return self.state == "withdrawn" or (self.confirm == "send" and self.revision > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRow:
    """A revision that became a message."""

    notice_id: UUID
    revision: int
    message_id: UUID
    notice_kind: str
    reason_code: str | None
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A waiting or dismissed obligation that is sent after all, with what its notice now says."""

    notice_id: UUID
    hearing_at: datetime
    hearing_zone: str
    outcome: str
    office: str
    lane: str
    release: str | None
    # What a person decided against by sending it; the court's decision answers no such question.
    kept_code: str | None


HearingKey = tuple[str, str, date]


def may_be_of_a_row(error: Exception) -> bool:
    """Tell whether the values of a row can have caused an error; else it is the store's own."""
    return not isinstance(error, Error) or isinstance(error, (DataError, IntegrityError))


_COLUMNS = (
    "o.notice_id, o.a_number, o.base_city, o.hearing_on, o.outcome, o.office, o.lane, o.state,"
    " o.confirm, o.confirm_code, o.kept_codes, o.revision, o.origin, o.release, o.eoir_case_key,"
    " o.eoir_proceeding_key, o.eoir_schedule_key, p.body AS content, r.message_id"
)
_NEWEST = (
    "LEFT JOIN notice_revision AS r ON r.notice_id = o.notice_id AND r.revision = o.revision"
    " LEFT JOIN payload AS p ON p.message_id = o.content_id"
)

# Which of these hearings are known: the natural key decides, wherever they come from.
_KNOWN = f"""
SELECT {_COLUMNS}
FROM unnest(%b::text[], %b::text[], %b::date[]) AS t (a_number, base_city, hearing_on)
JOIN obligation AS o USING (a_number, base_city, hearing_on)
{_NEWEST}
"""  # noqa: S608 - constants


async def known(tx: Transaction, keys: Sequence[HearingKey]) -> dict[HearingKey, Obligation]:
    """Return the obligations of these (A-number, base city, local date); nothing is held."""
    async with tx.cursor(row_factory=class_row(Obligation)) as cursor:
        await cursor.execute(
            _KNOWN, [[key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]]
        )
        rows = await cursor.fetchall()
    return {(row.a_number, row.base_city, row.hearing_on): row for row in rows}


# How often a child missed before, as far as a notice went out and stands.
_MISSED_BEFORE = """
SELECT t.a_number, t.base_city, t.hearing_on, count(*)
FROM unnest(%b::text[], %b::text[], %b::date[]) AS t (a_number, base_city, hearing_on)
JOIN obligation AS o ON o.a_number = t.a_number AND o.hearing_on < t.hearing_on
WHERE o.revision > 0 AND o.state <> 'withdrawn'
GROUP BY 1, 2, 3
"""


async def missed_before(tx: Transaction, keys: Sequence[HearingKey]) -> dict[HearingKey, int]:
    """Return how many earlier hearings the children of these missed; those with none are absent."""
    cursor = await tx.execute(
        _MISSED_BEFORE,
        [[key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]],
    )
    return {(row[0], row[1], row[2]): row[3] for row in await cursor.fetchall()}


async def lock(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, Obligation]:
    """Return obligations with their rows held until the transaction ends, in order of id."""
    async with tx.cursor(row_factory=class_row(Obligation)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM obligation AS o {_NEWEST}"  # noqa: S608 - constants
            " WHERE o.notice_id = ANY(%b::uuid[]) ORDER BY o.notice_id FOR UPDATE OF o",
            [list(notices)],
        )
        rows = await cursor.fetchall()
    return {row.notice_id: row for row in rows}


async def read(tx: Transaction, notice_id: UUID) -> Obligation | None:
    """Return one obligation; nothing is held."""
    async with tx.cursor(row_factory=class_row(Obligation)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM obligation AS o {_NEWEST}"  # noqa: S608 - constants
            " WHERE o.notice_id = %s",
            [notice_id],
        )
        return await cursor.fetchone()


# A hearing that somebody else opened meanwhile stays theirs. Rows come in order of their key, so
# that two imports of the same hearings wait for each other instead of deadlocking.
_ADD = """
INSERT INTO obligation (notice_id, a_number, base_city, hearing_on, hearing_at, hearing_zone,
                        outcome, office, lane, state, confirm, confirm_code, revision, detected_at,
                        origin, release, eoir_case_key, eoir_proceeding_key, eoir_schedule_key,
                        content_id)
SELECT * FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::date[], %b::timestamptz[], %b::text[],
                     %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
                     %b::int[], %b::timestamptz[], %b::text[], %b::text[], %b::bigint[],
                     %b::bigint[], %b::bigint[], %b::uuid[])
ON CONFLICT (a_number, base_city, hearing_on) DO NOTHING
RETURNING notice_id
"""


async def add(tx: Transaction, rows: Sequence[NewObligation]) -> set[UUID]:
    """Open obligations; returns those that did not exist, by their notice id."""
    ordered = sorted(rows, key=lambda row: (row.a_number, row.base_city, row.hearing_on))
    names = NewObligation.__dataclass_fields__
    cursor = await tx.execute(_ADD, [[getattr(row, name) for row in ordered] for name in names])
    return {row[0] for row in await cursor.fetchall()}


async def add_revisions(tx: Transaction, rows: Sequence[RevisionRow]) -> None:
    """Note revisions that became messages."""
    await tx.execute(
        "INSERT INTO notice_revision"
        " (notice_id, revision, message_id, notice_kind, reason_code, made_at)"
        " SELECT * FROM unnest(%b::uuid[], %b::int[], %b::uuid[], %b::text[], %b::text[],"
        " %b::timestamptz[])",
        [[getattr(row, name) for row in rows] for name in RevisionRow.__dataclass_fields__],
    )


# What was waiting or dismissed is sent: its content is in the payload from now on.
_SEND = """
UPDATE obligation AS o
SET state = 'recorded', confirm = NULL, confirm_code = NULL, revision = 1, content_id = NULL,
    hearing_at = t.hearing_at, hearing_zone = t.hearing_zone, outcome = t.outcome,
    office = t.office, lane = t.lane, release = t.release,
    kept_codes = array_remove(o.kept_codes || t.kept_code, NULL)
FROM unnest(%b::uuid[], %b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::text[],
            %b::text[], %b::text[])
    AS t (notice_id, hearing_at, hearing_zone, outcome, office, lane, release, kept_code)
WHERE o.notice_id = t.notice_id
"""


async def send_waiting(tx: Transaction, rows: Sequence[Sending]) -> None:
    """Turn obligations that were never sent into recorded ones; their rows are held already."""
    await tx.execute(
        _SEND, [[getattr(row, name) for row in rows] for name in Sending.__dataclass_fields__]
    )


async def set_state(
    tx: Transaction,
    notice_id: UUID,
    *,
    state: str,
    revision: int,
    kept_code: str | None = None,
) -> None:
    """Write a person's decision; `kept_code` is the reason that they decided against."""
    await tx.execute(
        "UPDATE obligation SET state = %s, revision = %s, confirm = NULL, confirm_code = NULL,"
        " kept_codes = array_remove(kept_codes || %s::text, NULL) WHERE notice_id = %s",
        [state, revision, kept_code, notice_id],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """What an obligation says after a correction; who and which hearing may be among it."""

    notice_id: UUID
    a_number: str
    base_city: str
    hearing_on: date
    hearing_at: datetime
    hearing_zone: str
    outcome: str
    office: str
    revision: int


async def correct(tx: Transaction, row: Corrected) -> None:
    """Write what a correction says over an obligation, whose row is held."""
    names = [name for name in Corrected.__dataclass_fields__ if name != "notice_id"]
    await tx.execute(
        f"UPDATE obligation SET {', '.join(f'{name} = %s' for name in names)}"  # noqa: S608 - names
        " WHERE notice_id = %s",
        [*(getattr(row, name) for name in names), row.notice_id],
    )


async def advance(tx: Transaction, revisions: Sequence[tuple[UUID, int]]) -> None:
    """Note the newest revision of notices."""
    await tx.execute(
        "UPDATE obligation AS o SET revision = t.revision"
        " FROM unnest(%b::uuid[], %b::int[]) AS t (notice_id, revision)"
        " WHERE o.notice_id = t.notice_id",
        [[notice_id for notice_id, _ in revisions], [revision for _, revision in revisions]],
    )


# A question for a person; `content_id` names what a notice would say now, where it is given.
_ASK = """
UPDATE obligation AS o
SET state = 'to_confirm', confirm = t.confirm, confirm_code = t.confirm_code,
    content_id = coalesce(t.content_id, o.content_id), outcome = coalesce(t.outcome, o.outcome)
FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::uuid[], %b::text[])
    AS t (notice_id, confirm, confirm_code, content_id, outcome)
WHERE o.notice_id = t.notice_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a person is to decide of an obligation: to send it, or to withdraw what was sent."""

    notice_id: UUID
    confirm: str
    confirm_code: str
    content_id: UUID | None = None
    outcome: str | None = None


async def ask(tx: Transaction, questions: Sequence[Question]) -> None:
    """Mark obligations for a person; their rows are held already."""
    await tx.execute(
        _ASK, [[getattr(q, name) for q in questions] for name in Question.__dataclass_fields__]
    )


async def end_questions(tx: Transaction, states: Sequence[tuple[UUID, str]]) -> None:
    """End what a person was asked of obligations, with the state that each has then."""
    await tx.execute(
        "UPDATE obligation AS o SET state = t.state, confirm = NULL, confirm_code = NULL"
        " FROM unnest(%b::uuid[], %b::text[]) AS t (notice_id, state)"
        " WHERE o.notice_id = t.notice_id",
        [[notice_id for notice_id, _ in states], [state for _, state in states]],
    )


# The last act that asked about a hearing or answered; and when the docket turned on it, where that
# is its last word: a person who followed it leaves it that. Refused acts are none.
_TURNED = """
SELECT DISTINCT ON (notice_id) notice_id, recorded_at AS last_at,
       CASE WHEN action IN ('notice.taken_back', 'notice.unasked') THEN recorded_at
            WHEN action IN ('notice.withdrawn', 'notice.dismissed')
                AND lag(action) OVER earlier = 'notice.taken_back'
                THEN lag(recorded_at) OVER earlier END AS docket_at
FROM record
WHERE notice_id = ANY(%b::uuid[])
  AND action IN ('notice.recorded', 'notice.to_confirm', 'notice.taken_back', 'notice.unasked',
                 'notice.confirmed', 'notice.dismissed', 'notice.kept', 'notice.withdrawn')
  AND convert_from(record, 'UTF8')::jsonb ->> 'result' = 'ok'
WINDOW earlier AS (PARTITION BY notice_id ORDER BY record_id)
ORDER BY notice_id, record_id DESC
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """When a hearing was last asked about or answered for, and when the docket had that word."""

    notice_id: UUID
    last_at: datetime
    docket_at: datetime | None


async def turned(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, Turned]:
    """Return who had the last word on these hearings, as far as its record is here."""
    if not notices:
        return {}
    async with tx.cursor(row_factory=class_row(Turned)) as cursor:
        await cursor.execute(_TURNED, [list(notices)])
        return {row.notice_id: row for row in await cursor.fetchall()}


# The first key of a kind stands with the obligation; what stands there is never changed.
_FIRST_KEYS = """
UPDATE obligation AS o
SET eoir_case_key = coalesce(o.eoir_case_key, t.case_key),
    eoir_proceeding_key = coalesce(o.eoir_proceeding_key, t.proceeding_key),
    eoir_schedule_key = coalesce(o.eoir_schedule_key, t.schedule_key)
FROM unnest(%b::uuid[], %b::bigint[], %b::bigint[], %b::bigint[])
    AS t (notice_id, case_key, proceeding_key, schedule_key)
WHERE o.notice_id = t.notice_id
"""


async def set_first_keys(tx: Transaction, keys: Sequence[tuple[UUID | int | None, ...]]) -> None:
    """Attach the court's keys (case, proceeding, schedule) where none of their kind is known."""
    await tx.execute(_FIRST_KEYS, [[row[part] for row in keys] for part in range(4)])


async def add_aliases(
    tx: Transaction, aliases: Sequence[tuple[UUID, str, int]]
) -> list[tuple[UUID, str, int]]:
    """Attach further keys (notice, kind, key); returns those that were not known."""
    ordered = sorted(set(aliases))
    cursor = await tx.execute(
        "INSERT INTO alias (notice_id, kind, key)"
        " SELECT * FROM unnest(%b::uuid[], %b::text[], %b::bigint[])"
        " ON CONFLICT DO NOTHING RETURNING notice_id, kind, key",
        [[row[part] for row in ordered] for part in range(3)],
    )
    return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]


async def bodies(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the plain content of messages, where it was not erased."""
    cursor = await tx.execute(
        "SELECT message_id, body FROM payload WHERE message_id = ANY(%b::uuid[])"
        " AND body IS NOT NULL",
        [list(messages)],
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHearing:
    """What a docket import needs of a hearing that was found before."""

    notice_id: UUID
    a_number: str
    base_city: str
    hearing_on: date
    outcome: str
    state: str
    confirm: str | None
    revision: int
    origin: str
    eoir_case_key: int | None
    eoir_proceeding_key: int | None
    eoir_schedule_key: int | None


# A page of what is known and not over, in order of id.
_HEARINGS = """
SELECT notice_id, a_number, base_city, hearing_on, outcome, state, confirm, revision, origin,
       eoir_case_key, eoir_proceeding_key, eoir_schedule_key
FROM obligation
WHERE (%(after)s::uuid IS NULL OR notice_id > %(after)s)
  AND state IN ('recorded', 'to_confirm')
ORDER BY notice_id LIMIT %(limit)s
"""


async def hearings(tx: Transaction, *, after: UUID | None, limit: int) -> list[KnownHearing]:
    """Return hearings whose notice stands or waits, after this id."""
    async with tx.cursor(row_factory=class_row(KnownHearing)) as cursor:
        await cursor.execute(_HEARINGS, {"after": after, "limit": limit})
        return await cursor.fetchall()
