"""Statements about recorded messages: in their order, with what the store has of each."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from schemas.envelope import CONTROL_KINDS, Kind
from services.exchange.beginnings import Beginning
from services.exchange.recorded import Direction, Recorded
from services.exchange.store.redrives import LETTERS
from services.ledger.store import Transaction
from services.replay.selection import Selection
from services.replay.store import archived

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
class Placed:
    """A message in its order. `state` is its inbox row's, `sent`, or None where it has no row.

    `entry_id` is where a stream holds it, for those that were read from one.
    """

    message: Recorded
    state: str | None
    entry_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the store has of one message; `kept` says that a payload row is there.

    `away` says that its content and bytes were moved to an archive file.
    """

    kept: bool
    salt: bytes | None
    body: bytes | None
    erased: bool
    envelope: bytes | None
    away: bool


async def begin_pass(tx: Transaction) -> None:
    """Let a transaction see the store as it is now until it ends; must be its first statement.

    It may wait for an hour (`PASS_SECONDS`) for who reads what it yields, and says by its name that
    it takes no messages.
    """
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await tx.execute("SET LOCAL idle_in_transaction_session_timeout = '1h'")
    await tx.execute("SET LOCAL statement_timeout = '10min'")
    await tx.execute("SET LOCAL work_mem = '64MB'")
    await tx.execute("SET LOCAL application_name = 'noticebus replay'")


async def read_only(tx: Transaction) -> None:
    """Let a pass write nothing from now on."""
    await tx.execute("SET TRANSACTION READ ONLY")


# What a database is told apart by: the cluster it lives in and the timeline that is written there,
# its number there, and when it was last restored from a backup of ours.
_IDENTITY = """
SELECT (SELECT system_identifier FROM pg_control_system())
       || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/' || oid
       || '/' || coalesce((SELECT extract(epoch FROM max(restored_at)) FROM restoration)::text, '')
FROM pg_database WHERE datname = current_database()
"""


async def identity(tx: Transaction) -> str:
    """Return what names this database, as far as PostgreSQL can tell it from its copies.

    One made by restoring a backup, from a template or a dump, by promoting a standby or by going
    back to a moment has another name. Files of a cluster that were copied and simply started have
    the same: no server knows that there are two of it.
    """
    (row,) = await (await tx.execute(_IDENTITY)).fetchall()
    return str(row[0])


# A message that is being taken as we look is dated before its commit: what began is waited out by
# ending the selection before it. Passes of replays take none.
_UNDER_WAY = """
SELECT extract(epoch FROM now() - min(xact_start))::float8
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND application_name = 'noticebus' AND state <> 'idle'
"""


async def under_way_seconds(tx: Transaction) -> float | None:
    """Return how long the oldest transaction that may take messages goes on, None without one."""
    (row,) = await (await tx.execute(_UNDER_WAY)).fetchall()
    return None if row[0] is None else float(row[0])


# Messages in order of time. Within a notice the revision decides: one that overtook an earlier one
# comes where the last of those before it came. When a message was taken is what its record says,
# because one that was refused first has an older inbox row.
_RECORDED = """
SELECT message_id, direction, kind, notice_id, revision, stream, generation, sequence,
       envelope_hash, at, place, state, entry_id
FROM (
    SELECT *, max(at) OVER (
        PARTITION BY direction, coalesce(notice_id, message_id) ORDER BY revision
    ) AS place
    FROM ({messages}) AS message
    WHERE {chosen}
) AS placed
WHERE {after}
ORDER BY place, coalesce(revision, 0), direction, message_id
"""
_ROWS = """
SELECT i.message_id, 'received' AS direction, i.kind, i.notice_id, i.revision, i.stream,
       i.generation, i.sequence, i.envelope_hash, coalesce(r.recorded_at, i.received_at) AS at,
       i.state, NULL::text AS entry_id
FROM inbox AS i LEFT JOIN record AS r USING (record_id)
WHERE i.state = ANY(%(states)s)
UNION ALL
SELECT message_id, 'sent', kind, notice_id, revision, stream, generation, sequence,
       envelope_hash, sequenced_at, 'sent', NULL
FROM sent
WHERE kind <> ALL(%(control)s)
"""
# Strangers on a stream, which come as they name themselves.
_STRANGERS = """
SELECT message_id, direction, kind, notice_id, revision, stream, generation, sequence,
       envelope_hash, at, NULL, entry_id
FROM replay_entry AS e
WHERE NOT EXISTS (SELECT FROM inbox AS i WHERE i.message_id = e.message_id)
  AND NOT EXISTS (SELECT FROM sent AS s WHERE s.message_id = e.message_id)
"""
# What a stream holds, with what we have on record of it.
_ENTRIES = f"""
SELECT m.message_id, m.direction, m.kind, m.notice_id, m.revision, m.stream, m.generation,
       m.sequence, m.envelope_hash, m.at, m.state, e.entry_id
FROM ({_ROWS}) AS m JOIN replay_entry AS e USING (message_id)
UNION ALL {_STRANGERS}
"""  # noqa: S608 - a constant
_AFTER = """
(place, coalesce(revision, 0), direction, message_id)
> (%(place)s, %(revision_after)s::int, %(direction)s::text, %(message_after)s::uuid)
"""
_CHOSEN = {
    "since": "at >= %(since)s",
    "until": "at < %(until)s",
    "notices": "notice_id = ANY(%(notices)s::uuid[])",
    "kinds": "kind = ANY(%(kinds)s::text[])",
    "lanes": "split_part(stream, '.', 3) = ANY(%(lanes)s::text[])",
    "sequences": """EXISTS (
        SELECT FROM unnest(%(streams)s::text[], %(firsts)s::bigint[], %(lasts)s::bigint[])
            AS r (stream, first, last)
        WHERE r.stream = message.stream AND message.sequence BETWEEN r.first AND r.last)""",
    "offices": """(
        notice_id IN (SELECT o.notice_id FROM said_office AS o WHERE o.notice_id IS NOT NULL)
        OR message_id IN (SELECT o.message_id FROM said_office AS o))""",
    "dead": f"""message_id IN (
        SELECT l.message_id FROM ({LETTERS}) AS l
        WHERE l.authentic AND (l.group_id = ANY(%(groups)s) OR l.cause = ANY(%(groups)s)))""",  # noqa: S608 - a constant
}
# What a run began with, whatever came of it since; what no stream or archive holds any more too.
_PLANNED = """
WITH planned AS MATERIALIZED (
    SELECT t.message_id, c.position + t.number AS number
    FROM replay_planned AS c, unnest(c.message_ids) WITH ORDINALITY AS t (message_id, number)
    WHERE c.plan_id = %(planned)s
)
SELECT message_id, m.direction, m.kind, m.notice_id, m.revision, m.stream, m.generation,
       m.sequence, m.envelope_hash, m.at, m.at AS place, m.state, {entry_id}
FROM planned AS p JOIN ({messages}) AS m USING (message_id) {entries}
WHERE {after}
ORDER BY p.number
"""
_AFTER_PLANNED = """
p.number > (SELECT number FROM planned WHERE message_id = %(message_after)s::uuid)
"""
# Messages that say one of these offices, by their content. Of a notice of which nothing says it any
# more the projection does: what cannot be replayed is selected, too, and shown as blocked.
_SAID_OFFICE = """
WITH said AS MATERIALIZED (
    SELECT m.message_id, m.notice_id,
           convert_from(p.body, 'UTF8')::jsonb ->> 'aor_code' AS office
    FROM (SELECT message_id, notice_id, kind FROM inbox
          UNION ALL SELECT message_id, notice_id, kind FROM sent) AS m
    JOIN {contents} AS p USING (message_id)
    WHERE m.kind IN ('fta', 'nilreturn') AND p.body IS NOT NULL
), said_office AS MATERIALIZED (
    SELECT message_id, notice_id FROM said WHERE office = ANY(%(offices)s::text[])
    UNION ALL
    SELECT NULL, c.notice_id FROM {cases} AS c
    WHERE c.office = ANY(%(offices)s::text[])
      AND NOT EXISTS (SELECT FROM said AS s WHERE s.notice_id = c.notice_id)
)
"""
# What each agency derives an office into; the other one's table is not there.
_CASES = "SELECT coalesce(to_regclass('case_file'), to_regclass('obligation'))::text"


async def _cases(tx: Transaction) -> str:
    """Return the table that has, by notice, the office as the agency's projection knows it."""
    (row,) = await (await tx.execute(_CASES)).fetchall()
    return str(row[0])


async def recorded(
    tx: Transaction,
    selection: Selection,
    *,
    after: Cursor | None,
    batch_max: int,
    entries: bool = False,
) -> AsyncGenerator[tuple[list[Placed], Cursor], None]:
    """Yield selected messages in batches, in order, each with the place of its last one.

    With `entries` those alone that were put into `replay_entry`, whatever is on record of them;
    of what a run began with all, without an `entry_id` where it is not there any more.
    """
    parts = [name for name in _CHOSEN if getattr(selection, name)]
    statement = _RECORDED.format(
        messages=_ENTRIES if entries else _ROWS,
        chosen=" AND ".join(_CHOSEN[name] for name in parts) or "true",
        after="true" if after is None else _AFTER,
    )
    if selection.offices:
        said = _SAID_OFFICE.format(contents=await archived.contents(tx), cases=await _cases(tx))
        statement = said + statement
    if selection.planned is not None:
        statement = _PLANNED.format(
            messages=f"{_ROWS} UNION ALL {_STRANGERS}" if entries else _ROWS,
            entry_id="e.entry_id" if entries else "m.entry_id",
            entries="LEFT JOIN replay_entry AS e USING (message_id)" if entries else "",
            after="true" if after is None else _AFTER_PLANNED,
        )
    states = ["applied"]
    if entries or selection.dead or selection.planned is not None:
        states += ["held", "refused", "superseded"]
    asked: dict[str, object] = {
        "since": selection.since,
        "until": selection.until,
        "notices": list(selection.notices),
        "kinds": [str(kind) for kind in selection.kinds],
        "lanes": [str(lane) for lane in selection.lanes],
        "offices": list(selection.offices),
        "streams": [each.stream for each in selection.sequences],
        "firsts": [each.first for each in selection.sequences],
        "lasts": [each.last for each in selection.sequences],
        "groups": [each.group_id for each in selection.dead],
        "control": sorted(CONTROL_KINDS),
        "states": states,
        "planned": selection.planned,
    }
    if after is not None:
        asked |= {
            "place": after.place,
            "revision_after": after.revision,
            "direction": after.direction,
            "message_after": after.message_id,
        }
    async with tx.cursor(name="replay", row_factory=dict_row) as cursor:
        await cursor.execute(statement, asked)
        while rows := await cursor.fetchmany(batch_max):
            last = rows[-1]
            yield (
                [_placed(row) for row in rows],
                Cursor(last["place"], last["revision"] or 0, last["direction"], last["message_id"]),
            )


def _placed(row: dict[str, Any]) -> Placed:
    said = {name: row[name] for name in Recorded.__dataclass_fields__}
    said |= {"direction": Direction(said["direction"]), "kind": Kind(said["kind"])}
    return Placed(message=Recorded(**said), state=row["state"], entry_id=row["entry_id"])


_STORED = """
SELECT m.message_id, p.message_id IS NOT NULL, p.salt, p.body, p.erased_at IS NOT NULL, e.envelope,
       a.message_id IS NOT NULL
FROM unnest(%b::uuid[]) AS m (message_id)
LEFT JOIN payload AS p USING (message_id)
LEFT JOIN envelope AS e USING (message_id)
LEFT JOIN archived AS a USING (message_id)
"""


async def stored(tx: Transaction, messages: Sequence[UUID]) -> dict[UUID, Stored]:
    """Return what the store has of each of these messages."""
    async with tx.cursor(binary=True) as cursor:
        await cursor.execute(_STORED, [list(messages)])
        return {
            row[0]: Stored(
                kept=row[1],
                salt=row[2],
                body=row[3],
                erased=row[4],
                envelope=row[5],
                away=row[6],
            )
            for row in await cursor.fetchall()
        }


_KEEP_ENTRIES = """
CREATE TEMPORARY TABLE IF NOT EXISTS replay_entry (
    message_id uuid PRIMARY KEY, direction text, kind text, notice_id uuid, revision integer,
    stream text, generation integer, sequence bigint, envelope_hash bytea, at timestamptz,
    entry_id text
) ON COMMIT DROP
"""


async def keep_entries(tx: Transaction, entries: Sequence[tuple[Recorded, str]]) -> None:
    """Note what a stream holds, for `recorded` in the same transaction; the first of each counts.

    `at` of a stranger is what it says itself.
    """
    await tx.execute(_KEEP_ENTRIES)
    if not entries:
        return
    names = tuple(Recorded.__dataclass_fields__)
    async with tx.cursor() as cursor:
        await cursor.executemany(
            f"INSERT INTO replay_entry ({', '.join(names)}, entry_id)"  # noqa: S608 - constants
            f" VALUES ({', '.join(['%s'] * len(names))}, %s) ON CONFLICT DO NOTHING",
            [
                [*(getattr(message, name) for name in names), entry_id]
                for message, entry_id in entries
            ],
        )


# The office that the newest revision of a notice names, by its content, else by the projection.
_OFFICES = """
SELECT notice_id, coalesce(s.office, c.office)
FROM unnest(%(notices)b::uuid[]) AS n (notice_id)
LEFT JOIN (
    SELECT DISTINCT ON (m.notice_id)
           m.notice_id, convert_from(p.body, 'UTF8')::jsonb ->> 'aor_code' AS office
    FROM (SELECT message_id, notice_id, revision, kind FROM inbox WHERE notice_id = ANY(%(notices)b)
          UNION ALL
          SELECT message_id, notice_id, revision, kind FROM sent WHERE notice_id = ANY(%(notices)b)
         ) AS m
    JOIN {contents} AS p USING (message_id)
    WHERE m.kind = 'fta' AND p.body IS NOT NULL
    ORDER BY m.notice_id, m.revision DESC
) AS s USING (notice_id)
LEFT JOIN {cases} AS c USING (notice_id)
"""


async def offices(tx: Transaction, notices: Sequence[UUID]) -> dict[UUID, str]:
    """Return the office of each of these notices, where anything says it."""
    if not notices:
        return {}
    statement = _OFFICES.format(contents=await archived.contents(tx), cases=await _cases(tx))
    cursor = await tx.execute(statement, {"notices": list(notices)})
    return {row[0]: row[1] for row in await cursor.fetchall() if row[1]}


_NOTICES = """
SELECT DISTINCT notice_id FROM (
    SELECT notice_id FROM inbox UNION ALL SELECT notice_id FROM sent
) AS message
WHERE notice_id BETWEEN %s AND %s
LIMIT 3
"""


async def notices(tx: Transaction, begins: Beginning) -> list[UUID]:
    """Return notices that messages are about and whose id begins so, at most three."""
    return [row[0] for row in await (await tx.execute(_NOTICES, begins)).fetchall()]


_STREAMS = "SELECT stream FROM stream_out UNION SELECT stream FROM stream_in"


async def streams(tx: Transaction) -> set[str]:
    """Return the streams that we ever wrote or read."""
    return {row[0] for row in await (await tx.execute(_STREAMS)).fetchall()}


_IN_GROUP = f"""
SELECT count(*), count(*) FILTER (WHERE l.authentic) FROM ({LETTERS}) AS l
WHERE l.group_id = %(group)s OR l.cause = %(group)s
"""  # noqa: S608 - a constant


async def letters(tx: Transaction, group: str) -> tuple[int, int]:
    """Return how much was ever set aside in this group, and how much of it is vouched for."""
    (row,) = await (await tx.execute(_IN_GROUP, {"group": group})).fetchall()
    return row[0], row[1]


def before_seconds(now: datetime, seconds: float | None) -> datetime:
    """Return the last moment before which everything dated is committed."""
    if seconds is None:
        return now
    # Whoever takes a message looks at the clock before its transaction begins.
    return datetime.fromtimestamp(now.timestamp() - seconds - 1.0, UTC)
