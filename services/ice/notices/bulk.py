"""Correct many notices from a CSV file: look at every row first, then send what can be sent.

The heading names `notice`, perhaps `reason`, and the fields to correct as `handwriting` names them.
An empty cell leaves a field as it is, `-` takes it back. A bad row never stops a good one; it is
named by its line, code and field, never by its values. A second run of the same file finds
everything said already, and sends nothing.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from schemas.errors import ConflictError, NotFoundError, RejectedError
from schemas.notice import Notice
from services.ice.docket.rejects import Reject
from services.ice.notices import handwriting
from services.ice.notices.correcting import Correction, correct, propose
from services.ice.notices.decisions import REFUSALS
from services.ice.notices.views import resolve
from services.ledger.store import Store

__all__ = ["Looked", "Row", "apply", "look", "read"]

NOTICE, REASON = "notice", "reason"
NOTHING = "-"
# What Python's reader says of a carriage return that no newline follows.
_CARRIAGE = "new-line character seen in unquoted field"
_TRUE = {"true": True, "yes": True, "y": True, "false": False, "no": False, "n": False}
# Fields that are no text; one cell cannot hold what has fields of its own.
_BOOLEANS = frozenset(
    name for name, field in Notice.model_fields.items() if field.annotation is bool
)
_NESTED = frozenset({"address_last_known"})


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file that could be read: 1-based, the heading being line 1."""

    line: int
    notice: str
    reason: str
    written: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Looked:
    """A row with what it would change, or why it cannot be taken."""

    row: Row
    correction: Correction | None
    reject: Reject | None = None

    @property
    def outcome(self) -> str:
        """Whether it is a change, said already, or rejected."""
        if self.correction is None:
            return "rejected"
        return "already" if self.correction.already else "change"


def read(path: Path, *, reason: str | None) -> tuple[list[Row], list[Reject]]:
    """Return the rows of a file, and those that cannot be read; `reason` is for rows without one.

    Raises `RejectedError` NB-1053 for a file or heading that cannot be read: then nothing was.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        rule = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error.strerror)
        raise RejectedError("NB-1053", file=path.name, rule=rule) from None
    # Lines end as editors show them: other characters that end a line in Unicode stand in cells.
    lines = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    rows: list[Row] = []
    rejects: list[Reject] = []
    seen: set[str] = set()
    try:
        names = _heading([name.strip() for name in next(lines, [])], path, reason=reason)
        for cells in _rows(lines):
            if cells is not None and not any(cell.strip() for cell in cells):
                continue
            try:
                row = _row(names, cells, lines.line_num, reason, seen)
            except RejectedError as error:
                rejects.append(_reject(path, lines.line_num, error))
            else:
                seen.add(row.notice)
                rows.append(row)
    except csv.Error as error:
        # The reader's words hold no value, but they are about its buffers.
        large = "field limit" in str(error)
        rule = "a cell is too large" if large else "its quotes do not close"
        raise RejectedError(
            "NB-1053", file=path.name, rule=f"{rule} at line {lines.line_num}"
        ) from None
    return rows, rejects


def _heading(names: Sequence[str], path: Path, *, reason: str | None) -> list[str]:
    if NOTICE not in names:
        raise RejectedError("NB-1053", file=path.name, rule="its heading has no column `notice`")
    if REASON not in names and reason is None:
        rule = "its heading has no column `reason`, and none was given for all rows"
        raise RejectedError("NB-1053", file=path.name, rule=rule)
    fields = [name if name in (NOTICE, REASON) else handwriting.field_named(name) for name in names]
    if len(set(fields)) < len(fields):
        raise RejectedError("NB-1053", file=path.name, rule="its heading names a column twice")
    for name in fields:
        if name in _NESTED:
            raise RejectedError("NB-1053", file=path.name, rule=f"{name} does not fit into a cell")
    return fields


def _rows(lines: Iterator[list[str]]) -> Iterator[list[str] | None]:
    """Yield the cells of each row, None for one that a carriage return breaks in two."""
    while True:
        try:
            yield next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            # The reader goes on with the next line; quotes that do not close swallow all lines.
            if _CARRIAGE not in str(error):
                raise
            yield None


def _row(
    names: Sequence[str],
    cells: Sequence[str] | None,
    line: int,
    reason: str | None,
    seen: set[str],
) -> Row:
    if cells is None:
        raise RejectedError("NB-1054", rule="a carriage return stands outside quotes")
    if len(cells) != len(names):
        raise RejectedError("NB-1054", rule="it has other fields than the heading")
    said = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
    notice = said.pop(NOTICE).lower()
    code = said.pop(REASON, "") or reason or ""
    if not notice or not notice.isprintable():
        raise RejectedError("NB-1054", rule="it names no notice")
    if notice in seen:
        raise RejectedError("NB-1054", rule="an earlier row names the same notice")
    written = {name: _value(name, cell) for name, cell in said.items() if cell}
    return Row(line=line, notice=notice, reason=code.upper(), written=written)


def _value(name: str, cell: str) -> Any:
    if cell == NOTHING:
        return None
    if name in _BOOLEANS:
        if cell.lower() not in _TRUE:
            raise RejectedError("NB-1000", field=name, rule="must be true or false")
        return _TRUE[cell.lower()]
    return cell


async def look(
    database: Store,
    path: Path,
    rows: Sequence[Row],
    *,
    actor: str,
    reveal: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Looked]:
    """Return what each row would change, or why it cannot be taken; nothing is sent."""
    looked: list[Looked] = []
    met: set[UUID] = set()
    for row in rows:
        try:
            notice_id = await resolve(database, row.notice)
            if notice_id in met:
                raise RejectedError("NB-1054", rule="an earlier row names the same notice")
            correction = await propose(
                database, notice_id, row.written, reason=row.reason, actor=actor, reveal=reveal
            )
        except REFUSALS as error:
            looked.append(Looked(row, None, _reject(path, row.line, error)))
        else:
            met.add(notice_id)
            looked.append(Looked(row, correction))
        if progress is not None:
            progress(len(looked))
    return looked


async def apply(
    database: Store,
    path: Path,
    looked: Sequence[Looked],
    *,
    actor: str,
    rejected: Callable[[Reject], None],
    progress: Callable[[int], None] | None = None,
) -> list[Correction]:
    """Send the corrections of rows that change something; returns those.

    Each is a transaction of its own, and `rejected` is told of a row that fails now at once. Raises
    `UnavailableError` when the store goes away: what was sent is sent, and the same file goes on
    from there.
    """
    sent: list[Correction] = []
    done = 0
    for each in looked:
        if each.correction is None or each.correction.already:
            continue
        row = each.row
        try:
            correction = await correct(
                database,
                each.correction.item.notice_id,
                row.written,
                reason=row.reason,
                actor=actor,
            )
        except REFUSALS as error:
            rejected(_reject(path, row.line, error))
        else:
            sent.append(correction)
        done += 1
        if progress is not None:
            progress(done)
    return sent


def _reject(path: Path, line: int, error: RejectedError | NotFoundError | ConflictError) -> Reject:
    field = error.where.get("field")
    return Reject(
        file=path.name,
        line=line,
        code=error.code,
        column=str(field) if field else "",
        said=f"{field}: {error.fix}" if field else error.fix,
    )
