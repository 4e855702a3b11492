"""How far each notice comes in a pass, kept outside of memory: there may be any number of them."""

import sqlite3
from uuid import UUID

_CACHE_KIB = 4_096


class Reached:
    """Revisions by notice, in a nameless file of SQLite that goes when it is closed.

    It has ids and numbers, nothing else. Nothing of it outlives the pass, so it never waits for the
    disk.
    """

    def __init__(self) -> None:
        self._file = sqlite3.connect("", isolation_level=None)
        for statement in (
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE reached (notice_id BLOB PRIMARY KEY, revision INTEGER) WITHOUT ROWID",
            "BEGIN",
        ):
            self._file.execute(statement)

    def get(self, notice_id: UUID, default: int, /) -> int:
        """Return the revision that a notice was brought to, else `default`."""
        row = self._file.execute(
            "SELECT revision FROM reached WHERE notice_id = ?", [notice_id.bytes]
        ).fetchone()
        return default if row is None else int(row[0])

    def __setitem__(self, notice_id: UUID, revision: int, /) -> None:
        self._file.execute(
            "INSERT INTO reached VALUES (?, ?) ON CONFLICT (notice_id) DO UPDATE SET revision = ?",
            [notice_id.bytes, revision, revision],
        )

    def close(self) -> None:
        """Forget them all."""
        self._file.close()
