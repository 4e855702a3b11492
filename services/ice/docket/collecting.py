"""The rejects of one release: kept where its rows are, told in order.

Every row of a release can be spoilt, and then there are as many rejects as rows. So they lie in the
table engine, which sorts them and spills what does not fit, encrypted; the broken rows of a loaded
table are there already and are not copied. In memory is one batch.
"""

from collections.abc import Callable, Iterable, Iterator
from heapq import merge

from services.ice.docket.rejects import Reject
from services.ice.docket.tables import Tables

_BATCH = 5_000

_KEPT = """
CREATE TABLE reject (file VARCHAR, line BIGINT, code VARCHAR, said_of VARCHAR, said VARCHAR)
"""
_COLUMNS = ("VARCHAR", "BIGINT", "VARCHAR", "VARCHAR", "VARCHAR")
_FILES = "SELECT DISTINCT file FROM reject"
_OF_FILE = "SELECT file, line, code, said_of, said FROM reject WHERE file = ? ORDER BY line, code"

Broken = Callable[[], Iterator[Reject]]
"""Yields the broken rows of one loaded table, in order of their lines."""


class Rejects:
    """Rejects as they come up; iterating yields each once, by file, line and code.

    Adding and iterating raise as `Tables.load` does.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._pending: list[Reject] = []
        self._broken: dict[str, Broken] = {}
        tables.execute(_KEPT)

    def add(self, reject: Reject) -> None:
        """Keep one reject."""
        self._pending.append(reject)
        if len(self._pending) >= _BATCH:
            self._flush()

    def update(self, rejects: Iterable[Reject]) -> None:
        """Keep rejects."""
        for reject in rejects:
            self.add(reject)

    def table(self, file: str, broken: Broken) -> None:
        """Count the broken rows of a loaded table among the rejects."""
        self._broken[file] = broken

    def __iter__(self) -> Iterator[Reject]:
        self._flush()
        kept = {file for (file,) in self._tables.rows(_FILES)}
        for file in sorted(kept | self._broken.keys()):
            broken = self._broken.get(file)
            last: Reject | None = None
            for reject in merge(self._of(file), broken() if broken else ()):
                if reject != last:
                    yield reject
                last = reject

    def _of(self, file: str) -> Iterator[Reject]:
        for row in self._tables.rows(_OF_FILE, [file]):
            yield Reject(*row)

    def _flush(self) -> None:
        # Let go of them first: what cannot be kept is not tried again.
        rejects, self._pending = self._pending, []
        self._tables.insert(
            "reject", _COLUMNS, ((r.file, r.line, r.code, r.column, r.said) for r in rejects)
        )
