"""Prove that state is a function of records and contents: make it again, and compare.

    found = await shadow(store, "hhs")
    assert not found.differing, found.differences

Every projection of an agency is made again from its records and the contents that were not erased,
in a schema of its own, and compared with the live one, row by row and column by column, as both
were at one moment. What is derived and what is primary is said in `services.exchange.rebuilding`
and in each agency's `rebuilding`; a column that is neither compared nor named in `PRIMARY` fails a
test. Values of columns that say who somebody is never leave the store.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from services.exchange.rebuilding import Progress, Rebuild, Rebuilding, rebuilding
from services.exchange.rebuilding import store as rebuilt
from services.hhs import rebuilding as hhs
from services.ice import rebuilding as ice
from services.ice.revisions import KEY_FIELDS
from services.ledger.store import Store
from services.replay.shadow import store

__all__ = ["PRIMARY", "TABLES", "Difference", "Shadowed", "Table", "rebuild_of", "shadow"]

log = structlog.get_logger()

# How many differences are named; all are counted.
NAMED_MAX = 1_000
ROW = "(row)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A projection: what its rows are told apart by, and which columns are compared.

    `personal` columns are compared, and their values never shown. `only` narrows the rows.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    personal: frozenset[str] = frozenset()
    only: str = ""


_SENT = Table(
    name="sent",
    key=("stream", "generation", "sequence"),
    columns=(
        "message_id",
        "kind",
        "notice_id",
        "revision",
        "envelope_hash",
        "sequenced_at",
        "overdue_at",
        "answer",
        "answer_code",
        "answer_message",
        "answer_index",
        "answered_at",
    ),
    # Numbering of control messages is transport: nothing is derived from it, and none is answered.
    only="answer IS DISTINCT FROM 'none'",
)

TABLES: Mapping[str, tuple[Table, ...]] = {
    "hhs": (
        Table(
            name="case_file",
            key=("notice_id",),
            columns=(
                "state",
                "office",
                "outcome",
                "base_city",
                "hearing_at",
                "hearing_zone",
                "priority",
                "lane",
                "revision",
                "notice_kind",
                "message_id",
                "opened_at",
                "due_at",
                "owner",
                "lease_until",
                "taken_at",
                "closed_at",
                "outcome_code",
                "reply_revision",
            ),
            personal=frozenset({"owner"}),
        ),
        Table(
            name="case_event",
            key=("record_id",),
            columns=("notice_id", "event", "code", "actor", "happened_at"),
            personal=frozenset({"actor"}),
        ),
        _SENT,
    ),
    "ice": (
        Table(
            name="obligation",
            key=("notice_id",),
            columns=(
                "a_number",
                "base_city",
                "hearing_on",
                "hearing_at",
                "hearing_zone",
                "outcome",
                "office",
                "lane",
                "state",
                "confirm",
                "confirm_code",
                "kept_codes",
                "revision",
                "detected_at",
                "origin",
                "release",
                "eoir_case_key",
                "eoir_proceeding_key",
                "eoir_schedule_key",
                "content_id",
            ),
            personal=frozenset({"a_number", *KEY_FIELDS}),
        ),
        Table(
            name="notice_revision",
            key=("notice_id", "revision"),
            columns=("message_id", "notice_kind", "reason_code", "made_at"),
        ),
        # A key leads to a child: the row is named by its notice alone.
        Table(
            name="alias",
            key=("notice_id", "kind", "key"),
            columns=(),
            personal=frozenset({"key"}),
        ),
        Table(
            name="reply",
            key=("notice_id", "revision"),
            columns=("kind", "code", "message_id", "happened_at", "received_at"),
        ),
        _SENT,
        # What people see: computed from the tables above, it differs where they do.
        Table(name="notice", key=("notice_id",), columns=("state",)),
    ),
}
# Columns of these tables that are not derived, each with the reason.
PRIMARY: Mapping[tuple[str, str], str] = {
    ("case_event", "event_id"): "a number in no order that matters; the record orders acts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One column of one row that is not what records and contents make of it.

    `row` tells it from others of its table; `column` is `(row)` where one side lacks the row. The
    values are None where they are personal, and where there are none.
    """

    table: str
    column: str
    notice_id: UUID | None
    row: str
    live: object
    rebuilt: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """What a comparison found: rows compared by table, contents that were erased, differences.

    `differing` counts columns; `differences` names the first of them.
    """

    agency: str
    rows: Mapping[str, int]
    tombstones: int
    differing: int
    differences: tuple[Difference, ...]

    @property
    def compared(self) -> int:
        """How many rows were compared."""
        return sum(self.rows.values())


def rebuild_of(agency: str) -> Rebuild:
    """Return what makes an agency's projections again."""
    return ice.rebuild if agency == "ice" else hhs.rebuild


async def shadow(
    database: Store,
    agency: str,
    *,
    progress: Progress | None = None,
    named_max: int = NAMED_MAX,
) -> Shadowed:
    """Make every projection again and compare it with the live one; changes nothing.

    Works on one moment of the store while live traffic goes on. Raises `UnavailableError` when the
    store goes away, `NotFoundError` NB-3070 while records are in an archive that does not lie
    beside the store.
    """
    rows: dict[str, int] = {}
    named: list[Difference] = []
    differing = 0
    async with rebuilding(database, rebuild_of(agency), progress=progress) as work:
        async for unfit in rebuilt.unfit(work.tx):
            differing += 1
            if len(named) < named_max:
                named.append(
                    Difference(
                        table=unfit.table,
                        column=unfit.column,
                        notice_id=unfit.notice_id,
                        row=unfit.row,
                        live=unfit.state,
                        rebuilt=None,
                    )
                )
        for table in TABLES[agency]:
            rows[table.name] = await store.count(work.tx, table=table.name, only=table.only)
            async for each in _compare(work, table):
                differing += 1
                if len(named) < named_max:
                    named.append(each)
            work.tell("rows compared", rows[table.name])
        tombstones = await rebuilt.tombstones(work.tx)
    found = Shadowed(
        agency=agency,
        rows=rows,
        tombstones=tombstones,
        differing=differing,
        differences=tuple(named),
    )
    log.info("shadow compared", rows=found.compared, tombstones=tombstones, differing=differing)
    return found


async def _compare(work: Rebuilding, table: Table) -> AsyncIterator[Difference]:
    columns = dict.fromkeys(("notice_id", *table.key, *table.columns))
    async for pair in store.differing(
        work.tx, table=table.name, key=table.key, columns=tuple(columns), only=table.only
    ):
        for each in _differences(table, pair):
            yield each


def _differences(table: Table, pair: store.Pair) -> Iterator[Difference]:
    said: Mapping[str, Any] = pair.live or pair.rebuilt or {}
    notice_id = UUID(said["notice_id"]) if said.get("notice_id") else None
    row = " ".join("-" if name in table.personal else str(said[name]) for name in table.key)
    if pair.live is None or pair.rebuilt is None:
        yield Difference(
            table=table.name,
            column=ROW,
            notice_id=notice_id,
            row=row,
            live=None if pair.live is None else "there",
            rebuilt=None if pair.rebuilt is None else "there",
        )
        return
    for name in table.columns:
        live, rebuilt_ = pair.live[name], pair.rebuilt[name]
        if live != rebuilt_:
            shown = name not in table.personal
            yield Difference(
                table=table.name,
                column=name,
                notice_id=notice_id,
                row=row,
                live=live if shown else None,
                rebuilt=rebuilt_ if shown else None,
            )
