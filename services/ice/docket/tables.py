"""Load the court's tables into DuckDB, keeping the rows that can matter.

Every line of every file is looked at, because a stray tab before an empty last column would else
shift a row without any error; kept are rows of cases in scope, and rows with a fault. What does not
fit into memory is spilled into a folder of the home, encrypted under a key that only this process
has; identities never get here (see `crosswalk`). About 600,000 rows a second of processor time.
"""

import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from schemas.errors import RejectedError, UnavailableError
from services.ice.docket.crosswalk import KEY_MAX, Entry
from services.ice.docket.files import LINE_BYTES_MAX, Encoding, Look, Transcoded
from services.ice.docket.layout import SPARES, Table
from services.ice.docket.rejects import Reject

Row = tuple[Any, ...]

_FETCH_ROWS = 2_000
_INSERT_ROWS = 50_000
_POLL_SECONDS = 0.2

# How far a statement is can be asked, and is never drawn by DuckDB itself.
_SESSION = """
SET enable_progress_bar = true;
SET enable_progress_bar_print = false;
"""

# Values are kept as text: NUL bytes and blanks around them gone, NULL for what only looks like a
# value. `NA` is a value (not applicable, naturalization, NACARA) and stays. A cast on a bare column
# would be pushed down into the reader, where it fails the whole file; `replace` prevents that.
# Casting takes much for a number that is no key (`12.5`, `1e3`, `0x10`, `1_000`), and for a date
# what no calendar of ours has (`infinity`, year 0): so what is cast must look like one as well.
_MACROS = r"""
CREATE MACRO plain(x) AS trim(replace(x, chr(0), ''), ' ' || chr(13));
CREATE MACRO filled(t) AS CASE
    WHEN trim(t, '?') = '' OR trim(t, '0') = '' OR lower(t) IN ('n/a', 'b6', 'a.2.a') THEN NULL
    ELSE t END;
CREATE MACRO said(x) AS filled(plain(x));
CREATE MACRO number_of(x) AS TRY_CAST(replace(x, chr(0), '') AS BIGINT);
CREATE MACRO key_of(x) AS CASE
    WHEN number_of(x) BETWEEN 1 AND {key_max} AND (CAST(number_of(x) AS VARCHAR) = x
        OR regexp_full_match(x, '[ \r\x00]*[0-9\x00]+[ \r\x00]*'))
    THEN number_of(x) END;
CREATE MACRO day_of(x) AS CASE
    WHEN regexp_full_match(x, '[0-9]{{4}}-[0-9]{{1,2}}-[0-9]{{1,2}}( [0-9:.]+)?')
        AND NOT starts_with(x, '0000')
    THEN CAST(try_strptime(x,
        ['%Y-%m-%d %H:%M:%S.%g', '%Y-%m-%d %H:%M:%S', '%Y-%m-%d']) AS DATE) END;
"""

# What the options do was measured one by one: see the tests of bad input.
_READ = """
read_csv({path}, delim='\t', quote='', escape='', comment='', header=true, auto_detect=false,
    null_padding=true, nullstr='\x01', encoding='{encoding}', strict_mode=false,
    max_line_size={line_bytes}, buffer_size={buffer_bytes}, columns={{{columns}}})
"""

# Rows with their number and their fault: a spare that is filled is one field too many, a last
# heading that is NULL is one too few.
_NUMBERED = """
SELECT line, case_key, {columns},
       CASE WHEN {spare} IS NOT NULL THEN 'NB-1012'
            WHEN {last} IS NULL THEN 'NB-1013'
            WHEN case_key IS NULL THEN 'NB-1014' END AS fault
FROM (SELECT row_number() OVER () AS line, key_of({key}) AS case_key, {columns}, {spare}{last_too}
      FROM {read})
"""


class Loading(NamedTuple):
    """How a table is loaded: its name, the heading of the case, what is kept of which rows.

    `columns`, `keep` and `faults` are SQL over the file's headings, `case_key` (what heading `key`
    says), `fault` (a code or NULL) and `line`, which is the loader's row number. Kept are whole
    rows that fulfil `keep`, and broken ones that fulfil `faults`; `columns` are what is asked for.
    """

    name: str
    key: str
    columns: str
    keep: str
    faults: str = "true"


class Tables:
    """One release in DuckDB, for as long as it is open.

    `threads` and `memory_limit` bound what it takes; past the limit it spills into `spill`, which
    is emptied before and after.
    """

    def __init__(self, spill: Path, *, memory_limit: str, threads: int) -> None:
        self.spill = spill
        shutil.rmtree(spill, ignore_errors=True)
        spill.mkdir(parents=True, mode=0o700)
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "temp_directory": str(spill),
                "memory_limit": memory_limit,
                "threads": threads,
                "preserve_insertion_order": True,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                # DuckDB's own AES-GCM takes its keys from a weak generator, hence the name. The
                # strong one is an extension from the network, and what is spilled names nobody.
                "force_mbedtls_unsafe": "true",
                "temp_file_encryption": True,
            },
        )
        self._connection.execute(_SESSION + _MACROS.format(key_max=KEY_MAX))

    def close(self) -> None:
        """Drop everything, spill files included."""
        self._connection.close()
        shutil.rmtree(self.spill, ignore_errors=True)

    def load(
        self,
        table: Table,
        path: Path,
        seen: Look,
        how: Loading,
        tick: Callable[[float], None] | None = None,
    ) -> None:
        """Make a table of the rows of a file that are wanted.

        Raises `RejectedError` NB-1011 for unknown headings, NB-1040 when the file cannot be read,
        `UnavailableError` NB-1041 when memory or disk run out.
        """
        if seen.encoding is not Encoding.MIXED:
            statement = _statement(table, path, seen, seen.encoding, how)
            self.execute(statement, file=table.file, tick=tick)
        else:
            with Transcoded(path, self.spill / "transcoded", "\t") as pipe:
                statement = _statement(table, pipe, seen, Encoding.UTF_8, how)
                self.execute(statement, file=table.file, tick=tick)
        # Values are read only where a question asks for them: most are never asked for.
        self.execute(
            f"CREATE VIEW {how.name} AS SELECT line, fault, case_key, {how.columns}"  # noqa: S608
            f" FROM {how.name}_read"
        )

    def execute(
        self, statement: str, *, file: str = "", tick: Callable[[float], None] | None = None
    ) -> None:
        """Run one statement to its end; `tick` is told the share done. Ctrl-C stops it at once.

        Raises as `load` does.
        """
        failures: list[duckdb.Error] = []

        def run() -> None:
            try:
                self._connection.execute(statement)
            except duckdb.Error as error:
                failures.append(error)

        # The statement runs beside, so that this thread can tell how far it is and hear Ctrl-C.
        thread = threading.Thread(target=run, name="docket")
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                if tick is not None and thread.is_alive():
                    tick(max(self._connection.query_progress(), 0.0) / 100)
        except BaseException:
            self._connection.interrupt()
            thread.join()
            raise
        if failures:
            raise self._named(failures[0], file) from None

    def insert(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Append rows to a table; `columns` are the SQL types of their values. Raises as `load`."""
        values = ", ".join(f"unnest(?::{kind}[])" for kind in columns)
        pending = iter(rows)
        while batch := list(islice(pending, _INSERT_ROWS)):
            lists = [list(column) for column in zip(*batch, strict=True)]
            try:
                self._connection.execute(f"INSERT INTO {name} SELECT {values}", lists)
            except duckdb.Error as error:
                raise self._named(error, "") from None

    def add_entries(self, entries: Iterable[Entry]) -> None:
        """Make table `crosswalk_row` of what may be known of the crosswalk."""
        self.execute(
            "CREATE TABLE crosswalk_row (case_key BIGINT, row BIGINT, child BIGINT, uac BOOLEAN)"
        )
        self.insert("crosswalk_row", ("BIGINT", "BIGINT", "BIGINT", "BOOLEAN"), entries)

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield the rows of a query as they come; raises as `load` does."""
        cursor = self._connection.cursor()
        try:
            cursor.execute(query, parameters)
            while rows := cursor.fetchmany(_FETCH_ROWS):
                yield from rows
        except duckdb.InterruptException:
            raise KeyboardInterrupt from None
        except duckdb.Error as error:
            raise self._named(error, "") from None
        finally:
            cursor.close()

    def faults(self, name: str, file: str, seen: Look, *, column: str) -> Iterator[Reject]:
        """Yield the rows of a loaded table that are broken, in order."""
        query = f"SELECT line, fault FROM {name} WHERE fault IS NOT NULL ORDER BY line"  # noqa: S608
        for row, code in self.rows(query):
            yield Reject(file, seen.line(row), code, column)

    def _named(self, error: duckdb.Error, file: str) -> RejectedError | UnavailableError:
        """Return the error in our words: DuckDB's own may quote a row."""
        if isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException)):
            return UnavailableError("NB-1041", spill=self.spill)
        if isinstance(error, duckdb.InvalidInputException) and file:
            return RejectedError("NB-1040", file=file, rule="it does not have the shape of a table")
        raise AssertionError(f"a statement of the docket failed: {type(error).__name__}")


def _statement(table: Table, path: Path, seen: Look, encoding: Encoding, how: Loading) -> str:
    headings = table.columns(seen.headings)
    spares = [f"spare_{number}" for number in range(1, SPARES + 1)]
    read = _READ.format(
        path=_quoted(path),
        encoding=encoding,
        line_bytes=LINE_BYTES_MAX,
        buffer_bytes=4 * LINE_BYTES_MAX,
        columns=", ".join(f"'{heading}': 'VARCHAR'" for heading in (*headings, *spares)),
    )
    columns = ", ".join(table.read)
    numbered = _NUMBERED.format(
        spare=spares[0],
        last=headings[-1],
        key=how.key,
        columns=columns,
        last_too="" if headings[-1] in table.read else f", {headings[-1]}",
        read=read,
    )
    return (
        f"CREATE TABLE {how.name}_read AS SELECT line, fault, case_key, {columns}"  # noqa: S608
        f" FROM ({numbered}) WHERE CASE WHEN fault IS NULL THEN {how.keep} ELSE {how.faults} END"
    )


def listed(codes: Collection[str]) -> str:
    """Return codes as a list in SQL, in order."""
    return ", ".join("'" + code.replace("'", "''") + "'" for code in sorted(codes))


def _quoted(path: Path) -> str:
    """Return a path as SQL text that names one file and is no pattern."""
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    return "'" + literal.replace("'", "''") + "'"
