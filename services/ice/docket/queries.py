"""What is asked of the loaded tables: who is in scope, which rows tell of a missed hearing.

A sighting is one row that may tell of a hearing, with all that the court says of it: a proceeding
with the schedule row of its COMP_DATE, or a schedule row by itself. The codes are not judged here,
see `rules`; the tables are only searched for what no rule calls innocent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

from services.ice.docket import rules
from services.ice.docket.crosswalk import Crosswalk
from services.ice.docket.files import Look
from services.ice.docket.layout import (
    CASES,
    COUNSEL,
    CROSSWALK,
    IDENTIFIERS,
    JUVENILES,
    LEADS,
    PRIORITIES,
    PROCEEDINGS,
    SCHEDULE,
    Table,
)
from services.ice.docket.rejects import Reject
from services.ice.docket.rules import Codes
from services.ice.docket.tables import Loading, Tables, listed


class Sighting(NamedTuple):
    """One row that may tell of a hearing; texts are None where the court left them empty."""

    is_order: bool
    line: int
    case_key: int
    proceeding_key: int | None
    schedule_key: int | None
    child: int
    crosswalk_row: int
    hearing_raw: str | None
    hearing_on: date | None
    time: str | None
    base_city: str | None
    hearing_loc: str | None
    cal_type: str | None
    schedule_type: str | None
    absentia: str | None
    other_comp: str | None
    dec_code: str | None
    case_type: str | None
    moved: bool
    rec_type: str | None
    adj_rsn: str | None
    medium: str | None
    # The schedule row and the proceeding name different cases.
    mismatch: bool
    # The schedule row has something for its own key that is none.
    unkeyed: bool
    custody: str | None
    # The row that supplies time and place; None where an order has none.
    schedule_line: int | None
    case_line: int | None = None
    nationality: str | None = None
    language: str | None = None
    birth: str | None = None
    city: str | None = None
    state: str | None = None
    zip: str | None = None
    counsel: bool | None = None
    group_key: int | None = None
    defect: bool | None = None
    next_on: date | None = None
    next_time: str | None = None
    next_city: str | None = None

    @property
    def codes(self) -> Codes:
        """The codes that decide."""
        return Codes(
            order=self.is_order,
            absentia=self.absentia,
            other_comp=self.other_comp,
            case_type=self.case_type,
            moved=self.moved,
            rec_type=self.rec_type,
            adj_rsn=self.adj_rsn,
            medium=self.medium,
        )

    @property
    def file(self) -> str:
        """The file that the row stands in."""
        return (PROCEEDINGS if self.is_order else SCHEDULE).file


# A child for each case in scope, with the newest crosswalk row. Rows of a case that disagree about
# child or scope cancel each other: see `crosswalk_rejects`.
_SCOPE = """
CREATE TABLE child AS
SELECT case_key, any_value(child) AS child, max(row) AS row FROM crosswalk_row
WHERE child > 0
GROUP BY case_key
HAVING count(DISTINCT child) = 1 AND count(DISTINCT uac) = 1 AND any_value(uac);
"""

_FLAG_COLUMNS = "said({column}) AS flag"
_FLAGGED = "said({column}) IN ({codes})"
# Where a row helps but is never missed, only a broken shape is worth a reject.
_SHAPE = "fault <> 'NB-1014'"
_IN_SCOPE = "case_key IN (SELECT case_key FROM child)"

# Cases that the court flags as an unaccompanied child's, and the first row that does.
_FLAGGED_CASES = """
CREATE VIEW flagged AS
SELECT case_key, 1 AS rank, line FROM juvenile WHERE fault IS NULL
UNION ALL SELECT case_key, 2, line FROM priority WHERE fault IS NULL
UNION ALL SELECT case_key, 3, line FROM identifier WHERE fault IS NULL
"""


def _flag_loading(name: str, key: str, column: str) -> Loading:
    flagged = _FLAGGED.format(column=column, codes=listed(rules.flags(column)))
    return _of_any_case(name, key, _FLAG_COLUMNS.format(column=column), flagged)


def _of_any_case(name: str, key: str, columns: str, keep: str) -> Loading:
    """Return the loading of a table in which a row without a case matters only if it is wanted."""
    return Loading(name, key, columns, keep, faults=f"fault <> 'NB-1014' OR ({keep})")


def _loading(table: Table) -> Loading:
    match table.name:
        case JUVENILES.name:
            return _flag_loading("juvenile", "idnCase", "idnJuvenile")
        case PRIORITIES.name:
            return _flag_loading("priority", "idnCase", "casePriority_code")
        case IDENTIFIERS.name:
            return _flag_loading("identifier", "IDNCASE", "CASE_ID")
        case CASES.name:
            priority = _FLAGGED.format(
                column="CASEPRIORITY_CODE", codes=listed(rules.flags("CASEPRIORITY_CODE"))
            )
            return Loading(
                "court_case",
                "IDNCASE",
                f"{priority} AS flagged, said(NAT) AS nat, said(LANG) AS lang,"
                " said(CUSTODY) AS custody, said(CASE_TYPE) AS case_type,"
                " said(C_BIRTHDATE) AS birth,"
                " coalesce(said(UPDATED_CITY), said(ALIEN_CITY)) AS city,"
                " coalesce(said(UPDATED_STATE), said(ALIEN_STATE)) AS state,"
                " coalesce(said(UPDATED_ZIPCODE), said(ALIEN_ZIPCODE)) AS zip,"
                " coalesce(said(E_28_DATE), said(ATTY_NBR)) IS NOT NULL AS counsel",
                " OR ".join((_IN_SCOPE, priority, "case_key IN (SELECT case_key FROM flagged)")),
            )
        case LEADS.name:
            keep = "said(datSeveredOn) IS NULL AND said(blnActive) IS NOT NULL"
            return Loading("lead", "idnLeadCase", "key_of(idnRiderCase) AS rider_key", keep, _SHAPE)
        case COUNSEL.name:
            keep = f"said(STRATTYTYPE) = 'ALIEN' AND {_IN_SCOPE}"
            return Loading("counsel", "IDNCASE", "true AS known", keep, _SHAPE)
        case PROCEEDINGS.name:
            return Loading(
                "proceeding",
                "IDNCASE",
                "key_of(IDNPROCEEDING) AS proceeding_key, said(BASE_CITY_CODE) AS base_city,"
                " said(DEC_CODE) AS dec_code, said(OTHER_COMP) AS other_comp,"
                " said(COMP_DATE) AS comp_date, day_of(said(COMP_DATE)) AS day,"
                " said(ABSENTIA) AS absentia, said(CUSTODY) AS custody,"
                " coalesce(said(VENUE_CHG_GRANTED), said(TRANSFER_TO)) IS NOT NULL AS moved,"
                " said(CASE_TYPE) AS case_type",
                _IN_SCOPE,
            )
        case SCHEDULE.name:
            return Loading(
                "schedule",
                "IDNCASE",
                "key_of(IDNSCHEDULE) AS schedule_key, key_of(IDNPROCEEDING) AS proceeding_key,"
                " said(IDNSCHEDULE) IS NOT NULL AND key_of(IDNSCHEDULE) IS NULL AS unkeyed,"
                " said(REC_TYPE) AS rec_type, said(HEARING_LOC_CODE) AS hearing_loc,"
                " said(BASE_CITY_CODE) AS base_city, said(CAL_TYPE) AS cal_type,"
                " said(SCHEDULE_TYPE) AS schedule_type, said(ADJ_DATE) AS adj_date,"
                " day_of(said(ADJ_DATE)) AS day, said(ADJ_TIME_START) AS time,"
                " said(ADJ_RSN) AS adj_rsn, said(ADJ_MEDIUM) AS medium",
                _IN_SCOPE,
            )
        case _:
            raise AssertionError(table.name)


def prepare(tables: Tables) -> None:
    """Make what the loading of tables asks for: who is in scope by the crosswalk."""
    tables.execute(_SCOPE)


def key_of(table: Table) -> str:
    """Return the heading under which a table names its case."""
    return _loading(table).key


def load(
    tables: Tables, table: Table, path: Path, seen: Look, tick: Callable[[float], None]
) -> None:
    """Load one table of a release; raises as `Tables.load` does."""
    tables.load(table, path, seen, _loading(table), tick)
    _loaded(tables, table)


def make_empty(tables: Tables, table: Table) -> None:
    """Stand in for an optional table that the release lacks."""
    extra = {"identifier": "flag VARCHAR", "lead": "rider_key BIGINT", "counsel": "known BOOLEAN"}
    name = _loading(table).name
    tables.execute(
        f"CREATE TABLE {name} (line BIGINT, fault VARCHAR, case_key BIGINT, {extra[name]})"
    )
    _loaded(tables, table)


def _loaded(tables: Tables, table: Table) -> None:
    if table is IDENTIFIERS:
        tables.execute(_FLAGGED_CASES)


def name_of(table: Table) -> str:
    """Return the name of a loaded table."""
    return _loading(table).name


# Rows of one case that name two children, or say Y and N.
_CONFLICTS = """
SELECT row FROM crosswalk_row
WHERE child > 0 AND case_key IN (
    SELECT case_key FROM crosswalk_row WHERE child > 0 GROUP BY case_key
    HAVING count(DISTINCT child) > 1 OR count(DISTINCT uac) > 1)
ORDER BY row
"""


def crosswalk_rejects(tables: Tables, crosswalk: Crosswalk) -> Iterator[Reject]:
    """Yield the crosswalk rows that contradict each other."""
    for (row,) in tables.rows(_CONFLICTS):
        yield Reject(CROSSWALK.file, crosswalk.line(row), "NB-1031", "IDNCASE")


# Cases flagged as an unaccompanied child's of which the crosswalk says nothing: the row of the case
# where the release has it, else the row of the flag.
_WITHOUT_CROSSWALK = """
WITH telling AS (
    SELECT case_key, 0 AS rank, line FROM court_case WHERE fault IS NULL
    AND (flagged OR case_key IN (SELECT case_key FROM flagged))
    UNION ALL SELECT case_key, rank, line FROM flagged
)
SELECT arg_min((rank, line), (rank, line)) AS place FROM telling
WHERE case_key NOT IN (SELECT case_key FROM crosswalk_row)
GROUP BY case_key
"""

# Children in scope whose case no table mentions, not even in a broken row.
_WITHOUT_CASE = """
SELECT row FROM child
WHERE case_key NOT IN (SELECT case_key FROM court_case WHERE case_key IS NOT NULL)
  AND case_key NOT IN (SELECT case_key FROM proceeding WHERE case_key IS NOT NULL)
  AND case_key NOT IN (SELECT case_key FROM schedule WHERE case_key IS NOT NULL)
ORDER BY row
"""


def unmatched(tables: Tables, crosswalk: Crosswalk, looks: Mapping[str, Look]) -> Iterator[Reject]:
    """Yield flagged cases without a crosswalk row, and crosswalk rows without a case."""
    by_rank = (CASES, JUVENILES, PRIORITIES, IDENTIFIERS)
    for (place,) in tables.rows(_WITHOUT_CROSSWALK):
        rank, row = place
        table = by_rank[rank]
        yield Reject(table.file, looks[table.name].line(row), "NB-1030", key_of(table))
    for (row,) in tables.rows(_WITHOUT_CASE):
        yield Reject(CROSSWALK.file, crosswalk.line(row), "NB-1036", "IDNCASE")


# What is looked at closely: the cases in `focus`, as tables of their own. Reading every value of
# every row in scope would take longer than reading the files.
_FOCUS = """
CREATE OR REPLACE TABLE close_case AS
SELECT * FROM court_case WHERE fault IS NULL AND case_key IN (SELECT case_key FROM focus)
QUALIFY row_number() OVER (PARTITION BY case_key ORDER BY line) = 1;
CREATE OR REPLACE TABLE close_proceeding AS
SELECT * FROM proceeding WHERE fault IS NULL AND case_key IN (SELECT case_key FROM focus);
CREATE OR REPLACE TABLE close_schedule AS
SELECT * FROM schedule WHERE fault IS NULL AND case_key IN (SELECT case_key FROM focus);
CREATE OR REPLACE VIEW hearing AS SELECT * FROM close_schedule WHERE rec_type IN ({candidates});
"""

# One row for each proceeding, with the best of the schedule rows of its COMP_DATE: of those that
# can be a hearing one of the same case that was held and is no trap, the newest among equals.
_ORDERS = """
SELECT true AS is_order, p.line, p.case_key, p.proceeding_key, s.schedule_key, x.child, x.row,
       p.comp_date AS hearing_raw, p.day AS hearing_on, s.time,
       coalesce(s.base_city, p.base_city) AS base_city, s.hearing_loc, s.cal_type, s.schedule_type,
       p.absentia, p.other_comp, p.dec_code, coalesce(p.case_type, c.case_type) AS case_type,
       p.moved, s.rec_type, s.adj_rsn, s.medium,
       coalesce(s.case_key <> p.case_key, false) AS mismatch,
       coalesce(s.unkeyed, false) AS unkeyed,
       coalesce(p.custody, c.custody) AS custody, s.line AS schedule_line
FROM close_proceeding AS p
JOIN child AS x ON x.case_key = p.case_key
LEFT JOIN close_case AS c ON c.case_key = p.case_key
LEFT JOIN hearing AS s ON s.proceeding_key = p.proceeding_key AND s.day = p.day
WHERE {where}
QUALIFY row_number() OVER (
    PARTITION BY p.line
    ORDER BY coalesce(s.case_key <> p.case_key, true), coalesce(s.adj_rsn IN ({traps}), false),
             coalesce(s.medium IN ({unheld}), false), s.schedule_key DESC NULLS LAST, s.line) = 1
"""

# One row for each schedule row. Its proceeding is the first of that key, since a key that stands
# twice must not make one hearing two; it may turn out to be another case's.
_ADJOURNMENTS = """
SELECT false AS is_order, s.line, s.case_key, s.proceeding_key, s.schedule_key, x.child, x.row,
       s.adj_date AS hearing_raw, s.day AS hearing_on, s.time,
       coalesce(s.base_city, p.base_city) AS base_city, s.hearing_loc, s.cal_type, s.schedule_type,
       p.absentia, p.other_comp, p.dec_code, coalesce(p.case_type, c.case_type) AS case_type,
       coalesce(p.moved, false) AS moved, s.rec_type, s.adj_rsn, s.medium,
       coalesce(o.case_key <> s.case_key, false) AS mismatch, s.unkeyed,
       coalesce(p.custody, c.custody) AS custody, s.line AS schedule_line
FROM close_schedule AS s
JOIN child AS x ON x.case_key = s.case_key
LEFT JOIN close_case AS c ON c.case_key = s.case_key
LEFT JOIN owner AS o ON o.proceeding_key = s.proceeding_key
LEFT JOIN close_proceeding AS p ON p.line = o.line
WHERE {where}
"""

# Which case a proceeding belongs to, and children who go to court together.
_LINKS = """
CREATE TABLE owner AS
SELECT proceeding_key, arg_min(case_key, line) AS case_key, min(line) AS line
FROM proceeding WHERE fault IS NULL AND proceeding_key IS NOT NULL
GROUP BY proceeding_key;
CREATE TABLE sibling AS
SELECT case_key, min(group_key) AS group_key FROM (
    SELECT rider_key AS case_key, case_key AS group_key FROM lead WHERE fault IS NULL
    UNION ALL SELECT case_key, case_key FROM lead WHERE fault IS NULL)
GROUP BY case_key;
"""

# Cases with a code that no rule calls innocent. The column as it stands is asked first: nearly
# every row ends there.
_SUSPECT = """
CREATE OR REPLACE TABLE focus AS
SELECT case_key FROM proceeding_read
WHERE (ABSENTIA NOT IN ({absentia}) AND said(ABSENTIA) NOT IN ({absentia}))
   OR (OTHER_COMP NOT IN ({other_comp}) AND said(OTHER_COMP) NOT IN ({other_comp}))
UNION
SELECT case_key FROM schedule_read
WHERE ADJ_RSN NOT IN ({adj_rsn}) AND said(ADJ_RSN) NOT IN ({adj_rsn})
"""

# Every sighting that may be a missed hearing, with what a notice can say besides.
_CANDIDATES = """
WITH sighting AS ({orders} UNION ALL {adjournments}),
next AS (
    SELECT case_key, day, time, base_city FROM hearing WHERE day IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY case_key, day ORDER BY schedule_key DESC NULLS LAST, line) = 1),
defect AS (SELECT DISTINCT case_key, day FROM hearing WHERE adj_rsn IN ({defects}))
SELECT q.*, c.line, c.nat, c.lang, c.birth, c.city, c.state, c.zip,
       CASE WHEN c.counsel OR q.case_key IN (SELECT case_key FROM counsel WHERE fault IS NULL)
            THEN true WHEN c.line IS NOT NULL THEN false END,
       g.group_key, d.day IS NOT NULL, n.day, n.time, n.base_city
FROM sighting AS q
ASOF LEFT JOIN next AS n ON n.case_key = q.case_key AND q.hearing_on < n.day
LEFT JOIN close_case AS c ON c.case_key = q.case_key
LEFT JOIN sibling AS g ON g.case_key = q.case_key
LEFT JOIN defect AS d ON d.case_key = q.case_key AND d.day = q.hearing_on
ORDER BY q.child, q.hearing_on NULLS FIRST, q.base_city, q.is_order DESC, q.case_key,
         q.proceeding_key, q.schedule_key, q.line
"""


def link(tables: Tables) -> None:
    """Make what the questions below join with; all tables are loaded."""
    tables.execute(_LINKS)


def candidates(tables: Tables) -> Iterator[Sighting]:
    """Yield what may be a missed hearing of a child in scope, by child and date."""
    absentia, other_comp, adj_rsn = (
        listed({*rules.innocent(name), ""}) for name in ("ABSENTIA", "OTHER_COMP", "ADJ_RSN")
    )
    tables.execute(_SUSPECT.format(absentia=absentia, other_comp=other_comp, adj_rsn=adj_rsn))
    _look_closely(tables)
    query = _CANDIDATES.format(
        orders=_orders(f"p.absentia NOT IN ({absentia}) OR p.other_comp NOT IN ({other_comp})"),
        adjournments=_ADJOURNMENTS.format(where=f"s.adj_rsn NOT IN ({adj_rsn})"),
        defects=listed(rules.defects()),
    )
    for row in tables.rows(query):
        yield Sighting(*row)


def _look_closely(tables: Tables) -> None:
    tables.execute(_FOCUS.format(candidates=listed(rules.candidates())))


def _orders(where: str) -> str:
    return _ORDERS.format(where=where, traps=listed(rules.traps()), unheld=listed(rules.unheld()))


_KNOWN = """
CREATE OR REPLACE TABLE known (
    number BIGINT, child BIGINT, base_city VARCHAR, day DATE, proceeding_key BIGINT)
"""

# The cases of children who have a known hearing.
_KNOWN_CASES = """
CREATE OR REPLACE TABLE focus AS
SELECT DISTINCT x.case_key FROM child AS x JOIN known AS k ON k.child = x.child
"""

# Everything that the release says of a known hearing: its day at its court, and its proceeding.
_TOLD = """
WITH ordered AS ({orders}), adjourned AS ({adjournments})
SELECT k.number, q.* FROM known AS k
JOIN ordered AS q ON q.child = k.child
 AND (q.proceeding_key = k.proceeding_key OR (q.hearing_on = k.day AND q.base_city = k.base_city))
UNION ALL
SELECT k.number, q.* FROM known AS k
JOIN adjourned AS q ON q.child = k.child AND q.hearing_on = k.day AND q.base_city = k.base_city
ORDER BY ALL
"""

# Known hearings of children whom DHS does not count as unaccompanied any more, and the newest
# crosswalk row that says so.
_OUT_OF_SCOPE = """
SELECT k.number, max(x.row) FROM known AS k JOIN crosswalk_row AS x ON x.child = k.child
GROUP BY k.number
HAVING NOT bool_or(x.uac)
ORDER BY k.number
"""


def add_known(tables: Tables, known: Iterable[tuple[int, int, str, date, int | None]]) -> None:
    """Hand over known hearings: a number each, child, base city, day, proceeding."""
    tables.execute(_KNOWN)
    tables.insert("known", ("BIGINT", "BIGINT", "VARCHAR", "DATE", "BIGINT"), known)


def told_of_known(tables: Tables) -> Iterator[tuple[int, Sighting]]:
    """Yield what the release tells of each known hearing, by its number."""
    tables.execute(_KNOWN_CASES)
    _look_closely(tables)
    query = _TOLD.format(orders=_orders("true"), adjournments=_ADJOURNMENTS.format(where="true"))
    for number, *row in tables.rows(query):
        yield number, Sighting(*row)


def out_of_scope(tables: Tables) -> Iterator[tuple[int, int]]:
    """Yield numbers of known hearings whose child is not in scope any more, and its row."""
    for row in tables.rows(_OUT_OF_SCOPE):
        yield row[0], row[1]
