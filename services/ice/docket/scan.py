"""A docket, open for reading: the way from a folder of tables to findings.

`Docket.open` reads every table once; `findings` then yields each missed hearing of a child in scope
once, a child's hearings together, in the same order for the same files. What cannot be read or
matched is in `rejects` when the findings are at their end, and never stops the rest; neither does a
row over which this program stumbles, which nobody foresaw. A row that no missed hearing in scope
rests on is only looked at for its shape: an adult's bad date is no reject.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

from schemas.codes import Treatment
from schemas.errors import RejectedError
from schemas.notice import HearingOutcome, ReasonCode
from services.ice.docket import queries
from services.ice.docket.collecting import Rejects
from services.ice.docket.composing import Composed, Composer, line_of
from services.ice.docket.crosswalk import Crosswalk
from services.ice.docket.files import Look, look
from services.ice.docket.findings import ConfirmCode, Finding, Known, TakenBack
from services.ice.docket.layout import CROSSWALK, TABLES, Table
from services.ice.docket.queries import Sighting
from services.ice.docket.rejects import Reject, RowFault, kept_at, unforeseen
from services.ice.docket.rules import Decision, decide, takes_back
from services.ice.docket.tables import Tables

THREADS = 2
# What the table engine may take, in MB: a floor, an eighth of the files, and never more than that.
_MEMORY_MB, _MEMORY_SHARE, _MEMORY_MB_MAX = 128, 8, 1024

Progress = Callable[[str, int, int], None]
"""Told what is read, how many rows are done, and of how many; never with a value."""

# A missed hearing alone says less than what the court did because of it.
_WEIGHTS = {
    HearingOutcome.MISSED_NO_ORDER: 0,
    HearingOutcome.ADMIN_CLOSED_FTA: 1,
    HearingOutcome.IN_ABSENTIA_ORDER: 2,
}


@dataclass(slots=True, kw_only=True)
class Docket:
    """One release, read; use as a context manager, or `close` it."""

    release: str
    # SHA-256 over the names and bytes of all files: the same release read again has the same.
    digest: str
    # Rows of each table, by its name; headings and empty lines left out.
    rows: dict[str, int]
    as_of: date
    # What was left out so far; to be read before the docket is closed.
    rejects: Rejects
    _tables: Tables
    _crosswalk: Crosswalk
    _looks: dict[str, Look]

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        spill: Path,
        release: str | None = None,
        as_of: date | None = None,
        memory_limit: str | None = None,
        threads: int = THREADS,
        rejects: Path | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Read the tables in `folder`.

        `release` names them in notices (default: the folder's name); a hearing after `as_of`
        (default: today) cannot have been missed yet. `spill` is a folder of this reading alone;
        the table engine keeps to `memory_limit` (default: by the size of the files) and spills
        the rest there, encrypted. Reading that ends early writes what it rejected by then to the
        file `rejects`.
        Raises `RejectedError` NB-1010, NB-1011 or NB-1040 for a file that is missing, has unknown
        headings or cannot be read, and `UnavailableError` NB-1041 when memory or disk run out;
        nothing is left behind then.
        """
        paths = _paths(folder)
        looks = _look_at(paths, progress)
        for table, seen in looks.items():
            table.columns(seen.headings)
        tables = Tables(spill, memory_limit=memory_limit or _memory_limit(paths), threads=threads)
        try:
            found = Rejects(tables)
            with kept_at(rejects, found):
                crosswalk = Crosswalk.open(paths[CROSSWALK], looks[CROSSWALK], found.add)
                docket = cls(
                    release=release or folder.resolve().name,
                    digest=_digest(looks),
                    rows={table.name: seen.rows for table, seen in looks.items()},
                    as_of=as_of or datetime.now(UTC).date(),
                    rejects=found,
                    _tables=tables,
                    _crosswalk=crosswalk,
                    _looks={table.name: seen for table, seen in looks.items()},
                )
                docket._load(paths, progress)
        except BaseException:
            tables.close()
            raise
        return docket

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back memory and disk."""
        self._tables.close()
        self._crosswalk.close()

    def findings(self) -> Iterator[Finding]:
        """Yield every missed hearing in scope once, by child and date; fills `rejects`."""
        composer = Composer(
            crosswalk=self._crosswalk,
            looks=self._looks,
            release=self.release,
            # A court in Guam is most of a day ahead of UTC.
            latest=self.as_of + timedelta(days=1),
        )
        sightings = queries.candidates(self._tables)
        for _, group in groupby(sightings, key=lambda row: (row.child, row.hearing_on)):
            yield from self._of_day(composer, list(group))

    def taken_back(self, known: Iterable[Known]) -> Iterator[TakenBack]:
        """Yield those of the known hearings that this release shows as not missed."""
        standing = list(known)
        children = [self._crosswalk.child(hearing.a_number) for hearing in standing]
        queries.add_known(
            self._tables,
            (
                (
                    number,
                    child,
                    hearing.base_city,
                    hearing.hearing_on,
                    hearing.eoir_proceeding_key,
                )
                for number, (child, hearing) in enumerate(zip(children, standing, strict=True))
                if child
            ),
        )
        for number, row in queries.out_of_scope(self._tables):
            line = self._crosswalk.line(row)
            yield _taken_back(standing[number], ReasonCode.OTHER, CROSSWALK.file, line)
        for number, group in groupby(queries.told_of_known(self._tables), key=lambda row: row[0]):
            sightings = [sighting for _, sighting in group]
            try:
                told = _reason(sightings, standing[number])
            except Exception as error:  # noqa: BLE001 - one hearing's, see `unforeseen`
                self.rejects.add(self._reject(sightings[0], unforeseen(error)))
                continue
            if told is not None:
                code, speaks = told
                line = line_of(speaks, self._looks)
                yield _taken_back(standing[number], code, speaks.file, line)

    def _of_day(self, composer: Composer, sightings: Sequence[Sighting]) -> Iterator[Finding]:
        """Yield the findings of one child on one day, one for each court."""
        composed: dict[str, list[Composed]] = {}
        for sighting in sightings:
            try:
                decision = decide(sighting.codes)
                if decision.treatment is Treatment.NONE:
                    continue
                made = composer.compose(sighting, decision)
            except RowFault as fault:
                self.rejects.add(composer.reject(sighting, fault))
                continue
            except Exception as error:  # noqa: BLE001 - one row's, see `unforeseen`
                self.rejects.add(composer.reject(sighting, unforeseen(error)))
                continue
            composed.setdefault(made.finding.base_city, []).append(made)
        for _, telling in sorted(composed.items()):
            # The first of equals: rows come in the order of the court's keys.
            best = max(telling, key=_weight)
            others = {made.finding.keys for made in telling} - {best.finding.keys}
            yield composer.finished(best, tuple(sorted(others)))

    def _load(self, paths: dict[Table, Path], progress: Progress | None) -> None:
        self._tables.add_entries(self._crosswalk.entries())
        self.rejects.update(queries.crosswalk_rejects(self._tables, self._crosswalk))
        total = sum(self.rows.values())
        done = self.rows[CROSSWALK.name]
        queries.prepare(self._tables)
        for table in TABLES:
            if table not in paths:
                queries.make_empty(self._tables, table)
                continue
            seen = self._looks[table.name]

            def tick(share: float, table: Table = table, done: int = done) -> None:
                if progress is not None:
                    progress(table.name, done + int(share * self.rows[table.name]), total)

            queries.load(self._tables, table, paths[table], seen, tick)
            done += self.rows[table.name]
            tick(0.0, table, done)
            self.rejects.table(table.file, partial(self._broken, table))
        queries.link(self._tables)
        self.rejects.update(queries.unmatched(self._tables, self._crosswalk, self._looks))

    def _reject(self, row: Sighting, fault: RowFault) -> Reject:
        return Reject(row.file, line_of(row, self._looks), fault.code, fault.column)

    def _broken(self, table: Table) -> Iterator[Reject]:
        name, column = queries.name_of(table), queries.key_of(table)
        return self._tables.faults(name, table.file, self._looks[table.name], column=column)


def _paths(folder: Path) -> dict[Table, Path]:
    """Return the file of each table; names are compared without case."""
    try:
        found = {path.name.casefold(): path for path in folder.iterdir()}
    except OSError as error:
        rule = error.strerror or "it cannot be opened"
        raise RejectedError("NB-1040", file=str(folder), rule=rule) from None
    paths: dict[Table, Path] = {}
    for table in (CROSSWALK, *TABLES):
        path = found.get(table.file.casefold())
        if path is not None:
            paths[table] = path
        elif table.required:
            raise RejectedError("NB-1010", file=table.file)
    return paths


def _memory_limit(paths: dict[Table, Path]) -> str:
    size_mb = sum(path.stat().st_size for path in paths.values()) // 1_000_000
    return f"{min(_MEMORY_MB + size_mb // _MEMORY_SHARE, _MEMORY_MB_MAX)}MB"


def _look_at(paths: dict[Table, Path], progress: Progress | None) -> dict[Table, Look]:
    looks: dict[Table, Look] = {}
    for table, path in paths.items():
        if progress is not None:
            progress(table.name, 0, 0)
        looks[table] = look(path, delimiter="," if table is CROSSWALK else "\t")
    return looks


def _digest(looks: dict[Table, Look]) -> str:
    digest = hashlib.sha256()
    for table in sorted(looks, key=lambda table: table.name):
        digest.update(table.file.encode() + b"\0" + looks[table].sha256)
    return digest.hexdigest()


def _weight(made: Composed) -> tuple[bool, int]:
    said = _WEIGHTS[HearingOutcome(made.finding.content["outcome"])]
    return made.decision.treatment is Treatment.SEND, said


def _taken_back(hearing: Known, code: ReasonCode, file: str, line: int) -> TakenBack:
    return TakenBack(
        a_number=hearing.a_number,
        base_city=hearing.base_city,
        hearing_on=hearing.hearing_on,
        code=code,
        file=file,
        line=line,
    )


def _reason(sightings: Sequence[Sighting], hearing: Known) -> tuple[ReasonCode, Sighting] | None:
    """Return why a known hearing is taken back and which row says so, or None.

    None where it stands or nothing is said.
    """
    ordered = hearing.outcome != HearingOutcome.MISSED_NO_ORDER
    missed: list[tuple[Decision, Sighting]] = []
    reasons: list[tuple[ReasonCode, Sighting]] = []
    for sighting in sightings:
        try:
            decision = decide(sighting.codes)
        except RowFault:
            # What cannot be read takes nothing back.
            return None
        if sighting.unkeyed:
            return None
        if decision.treatment is Treatment.NONE:
            if sighting.is_order and hearing.eoir_proceeding_key not in (
                None,
                sighting.proceeding_key,
            ):
                # Another proceeding that ended that day says nothing of the one that was known.
                continue
            reason = takes_back(sighting.codes, hearing.outcome)
            reasons += [] if reason is None else [(reason, sighting)]
        elif sighting.hearing_on is None:
            return None
        elif sighting.hearing_on == hearing.hearing_on:
            missed.append((decision, sighting))
        elif ordered:
            reasons.append((ReasonCode.WRONG_HEARING, sighting))
    if missed:
        moved = all(decision.confirm is ConfirmCode.VENUE_CHANGED for decision, _ in missed)
        sent = hearing.revision > 0
        return (ReasonCode.VENUE_CHANGED, missed[0][1]) if moved and ordered and sent else None
    return next(iter(reasons), None)
