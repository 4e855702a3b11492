"""Invent a docket: tables in exactly the court's layout, all quirks included, with known answers.

Of `rows` proceedings `missed` tell of one missed hearing each of a child in scope: those to be sent
and those that wait for a person, together. Rejects and traps come beside them, each kind at least
once and once more for every 2,000 rows. `answers.csv` has a line for each schedule row, and one by
the case for a reject that lies elsewhere. Everybody in it is invented.

The same seed and the same last day give the same bytes. Seeds that differ modulo 100 give different
children under different keys of the court, so that both dockets can be imported into one home.
Memory does not grow with the rows.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import TextIO

from schemas.errors import RejectedError
from services.ice.docket.invented import Invented, stamp, tail_of
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
from services.ice.docket.stories import ASKED, NONE, REJECTED, SENT, Expected, Spoil, Story

ANSWERS = "answers.csv"
ANSWER_HEADINGS = ("IDNCASE", "IDNPROCEEDING", "IDNSCHEDULE", "expected", "outcome", "code")

_CONFIRM_EVERY = 10
_ROWS_A_ROUND = 2_000
_PROGRESS_ROWS = 10_000
# One of these many schedule rows a proceeding, 2.4 on average.
_HEARINGS = (1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 6)
_FIRST_CASE, _FIRST_PROCEEDING, _FIRST_SCHEDULE = 5_000_000, 7_000_000, 40_000_000
# Each seed's keys of each kind lie in a range of so many.
_KEYS_A_BLOCK = 1_000_000_000

# The same column under another name, in one file of each release that drifts.
_DRIFT = {"Sex": "GENDER", "TRANS_IN_DATE": "TRANSFER_DATE", "ADJ_MEDIUM": "ADJ_MED"}
_LATIN_1 = (CASES,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesized:
    """What was written: rows by table, and answers by what is expected."""

    rows: Mapping[str, int]
    expected: Mapping[str, int]


def synthesize(
    folder: Path,
    *,
    rows: int,
    missed: int,
    seed: int,
    confirm: int | None = None,
    until: date | None = None,
    progress: Callable[[int], None] | None = None,
) -> Synthesized:
    """Write an invented docket into a new or empty folder.

    `confirm` of the missed hearings wait for a person (default: one in ten); `until` is the last
    day on which a hearing was missed (default: yesterday). `progress` is told of the proceedings
    written. Raises `RejectedError` NB-1042 when there are fewer rows than missed hearings, and
    NB-1043 when the folder holds something.
    """
    waiting = missed // _CONFIRM_EVERY if confirm is None else confirm
    if not 0 <= waiting <= missed <= rows:
        raise RejectedError("NB-1042", rows=rows, missed=missed)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise RejectedError("NB-1043", folder=folder)
    today = datetime.now(UTC).date()
    with ExitStack() as files:
        release = _Release(Invented(seed, until or today - timedelta(days=1)), folder, files)
        release.write(rows, missed - waiting, waiting, progress)
        return Synthesized(rows=dict(release.rows), expected=dict(release.expected))


@dataclass(slots=True)
class _Release:
    """The files of one docket while they are written."""

    invented: Invented
    folder: Path
    files: ExitStack
    rows: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    _open: dict[str, TextIO] = field(default_factory=dict)
    _case: int = field(init=False)
    _proceeding: int = field(init=False)
    _schedule: int = field(init=False)
    _lead: int = 0
    # Whether the ordinary case at hand is a child's, who appeared whenever it had to.
    _appears: bool = False

    def __post_init__(self) -> None:
        before = self.invented.block * _KEYS_A_BLOCK
        self._case = before + _FIRST_CASE
        self._proceeding = before + _FIRST_PROCEEDING
        self._schedule = before + _FIRST_SCHEDULE

    def write(
        self, rows: int, sent: int, asked: int, progress: Callable[[int], None] | None
    ) -> None:
        self._start()
        stories = self._stories(rows, sent, asked)
        at = iter(sorted(stories))
        next_story = next(at, rows)
        # An ordinary case may run over two proceedings.
        same_case = False
        for number in range(rows):
            if number == next_story:
                self._tell(stories[number])
                next_story = next(at, rows)
                same_case = False
            else:
                self._ordinary(same_case=same_case)
                same_case = not same_case and self.invented.random.random() < 0.3
            if progress is not None and (number + 1) % _PROGRESS_ROWS == 0:
                progress(number + 1)
        if progress is not None:
            progress(rows)

    def _start(self) -> None:
        tables = (CASES, PROCEEDINGS, SCHEDULE, JUVENILES, PRIORITIES, IDENTIFIERS, LEADS, COUNSEL)
        for table in tables:
            encoding = "latin-1" if table in _LATIN_1 else "utf-8"
            headings = [_DRIFT.get(heading, heading) for heading in table.headings]
            self._begin(table.name, table.file, encoding, "\t".join(headings))
        self._begin(CROSSWALK.name, CROSSWALK.file, "utf-8", ",".join(CROSSWALK.headings))
        self._begin(ANSWERS, ANSWERS, "utf-8", ",".join(ANSWER_HEADINGS))
        # Some systems leave empty lines behind; they are no rows.
        self._open[SCHEDULE.name].write("\n")

    def _begin(self, name: str, file: str, encoding: str, heading: str) -> None:
        path = self.folder / file
        self._open[name] = self.files.enter_context(
            path.open("w", encoding=encoding, newline="", buffering=1 << 20)
        )
        self._open[name].write(f"{heading}\n")
        if name != ANSWERS:
            self.rows[name] = 0

    def _stories(self, rows: int, sent: int, asked: int) -> dict[int, Story]:
        """Return which proceedings tell which story."""
        told: list[Story] = [*islice(cycle(SENT), sent), *islice(cycle(ASKED), asked)]
        rounds = max(1, rows // _ROWS_A_ROUND)
        # In a small docket as many kinds as fit, rejects first.
        told += islice((*REJECTED, *NONE) * rounds, rows - len(told))
        places = self.invented.random.sample(range(rows), len(told))
        return dict(zip(places, told, strict=True))

    def _line(self, name: str, line: str) -> None:
        self._open[name].write(line)
        self._open[name].write("\n")
        self.rows[name] += 1

    def _answer(
        self, case: object, proceeding: object, schedule: object, story: Story | None
    ) -> None:
        expected = Expected.NONE if story is None else story.expected
        outcome, code = ("", "") if story is None else (story.outcome, story.code)
        self._open[ANSWERS].write(f"{case},{proceeding},{schedule},{expected},{outcome},{code}\n")
        self.expected[expected] = self.expected.get(expected, 0) + 1

    def _ordinary(self, *, same_case: bool) -> None:
        """Write a proceeding that no notice comes of: an adult's, or of a child that appeared."""
        invented = self.invented
        if not same_case:
            self._case += 1
            self._appears = invented.random.random() < 0.04
            if self._appears:
                self._child({}, {}, "4", "UC")
            else:
                self._line(CASES.name, f"{self._case}\t{invented.case_line()}")
                if invented.random.random() < 0.2:
                    self._flags("5", "NA")
        self._proceeding += 1
        adult = not self._appears
        line = invented.proceeding_line(adult=adult)
        self._line(PROCEEDINGS.name, f"{self._proceeding}\t{self._case}\t{line}")
        for _ in range(_HEARINGS[invented.number(len(_HEARINGS))]):
            self._hearing(invented.hearing_line(adult=adult))

    def _hearing(self, line: str) -> None:
        self._schedule += 1
        self._line(SCHEDULE.name, f"{self._schedule}\t{self._proceeding}\t{self._case}\t{line}")
        self._answer(self._case, self._proceeding, self._schedule, None)

    def _tell(self, story: Story) -> None:
        """Write a case of one proceeding, with the decisive hearing and what went before."""
        invented = self.invented
        self._case += 1
        self._proceeding += 1
        day, place = invented.day(), invented.place()
        dates = {
            "day": stamp(day),
            "future": stamp(invented.until + timedelta(days=400)),
            "old": "1899-12-31 00:00:00.000",
        }
        self._child(story.case, story.crosswalk, story.juvenile, story.priority, place, story)
        values = {**invented.proceeding(place, day), **_dated(story.proceeding, dates)}
        row = f"{self._proceeding}\t{self._case}\t{tail_of(PROCEEDINGS, values, keys=2)}"
        self._line(PROCEEDINGS.name, _spoiled(row, PROCEEDINGS, story))
        if story.at_case:
            self._answer_at_case(story)
        before = _HEARINGS[invented.number(len(_HEARINGS))] - 1
        for _ in range(before):
            earlier = invented.hearing(place, day - timedelta(days=30 + invented.number(300)), "17")
            self._hearing(tail_of(SCHEDULE, earlier, keys=3))
        if story.hearing is not None:
            self._decisive(story, place, day, dates)

    def _answer_at_case(self, story: Story) -> None:
        if story.spoil == (CROSSWALK, Spoil.STRANGER):
            self._answer(_stranger(self._case), "", "", story)
        elif (story.spoil is not None and story.spoil[0] is PROCEEDINGS) or story.hearing is None:
            self._answer(self._case, self._proceeding, "", story)
        else:
            self._answer(self._case, "", "", story)
        if story.spoil == (CROSSWALK, Spoil.TWICE):
            self._answer(self._case, "", "", story)

    def _decisive(
        self, story: Story, place: Sequence[str], day: date, dates: Mapping[str, str]
    ) -> None:
        """Write the schedule row of the day that the story is about."""
        self._schedule += 1
        usual = "8B" if "COMP_DATE" in story.proceeding else "17"
        keys = {
            "IDNSCHEDULE": str(self._schedule),
            "IDNPROCEEDING": str(self._proceeding),
            "IDNCASE": str(self._case),
        }
        values = {**keys, **self.invented.hearing(place, day, usual)}
        values |= _dated(story.hearing or {}, dates)
        self._line(SCHEDULE.name, _spoiled(tail_of(SCHEDULE, values, keys=0), SCHEDULE, story))
        answer = None if story.at_case else story
        self._answer(self._case, self._proceeding, self._schedule, answer)

    def _child(
        self,
        case: Mapping[str, str],
        crosswalk: Mapping[str, str] | None,
        juvenile: str,
        priority: str,
        place: Sequence[str] | None = None,
        story: Story | None = None,
    ) -> None:
        """Write the case of a child, its flags, and its row of the crosswalk."""
        invented = self.invented
        place = place or invented.place()
        values = {**invented.case(place), "CASEPRIORITY_CODE": priority, **case}
        line = _spoiled(f"{self._case}\t{tail_of(CASES, values, keys=1)}", CASES, story)
        self._line(CASES.name, line)
        self._flags(juvenile, priority)
        if invented.random.random() < 0.3:
            number = self.rows[COUNSEL.name] + 1
            self._line(
                COUNSEL.name, f"{number}\t{self._case}\tCOURT\tALIEN\tA_TBLCASE\t1\tHOU\t\t\t\t1"
            )
        person = invented.person(place, values["C_BIRTHDATE"])
        if crosswalk is not None:
            digits = person["a_number"].removeprefix("A")
            told = {name: value.format(number=digits) for name, value in crosswalk.items()}
            self._person({"IDNCASE": str(self._case), **person, **told}, story)
        self._siblings()

    def _person(self, values: Mapping[str, str], story: Story | None) -> None:
        line = _comma(values)
        spoil = story.spoil if story is not None else None
        if spoil is None or spoil[0] is not CROSSWALK:
            self._line(CROSSWALK.name, line)
            return
        match spoil[1]:
            case Spoil.TAB | Spoil.TAB_AT_END:
                line += ",1"
            case Spoil.CUT_SHORT:
                line = line.rsplit(",", 3)[0]
            case Spoil.OPEN_QUOTE:
                line = line.replace(",Y,", ',"Y,', 1)
            case Spoil.TWICE:
                other = self.invented.person(self.invented.place(), "5/2014")
                self._line(CROSSWALK.name, _comma({"IDNCASE": str(self._case), **other}))
            case Spoil.STRANGER:
                other = self.invented.person(self.invented.place(), "5/2014")
                key = str(_stranger(self._case))
                self._line(CROSSWALK.name, _comma({"IDNCASE": key, **other}))
        self._line(CROSSWALK.name, line)

    def _flags(self, juvenile: str, priority: str) -> None:
        number = self.rows[JUVENILES.name] + 1
        loaded = stamp(self.invented.until)
        self._line(
            JUVENILES.name,
            f"{number}\t{self._case}\t{self._proceeding + 1}\t{juvenile}\t{loaded}\t{loaded}",
        )
        if priority:
            number = self.rows[PRIORITIES.name] + 1
            self._line(PRIORITIES.name, f"{number}\t{priority}\t{self._case}\t{loaded}\t{loaded}")
        if priority == "UC":
            number = self.rows[IDENTIFIERS.name] + 1
            self._line(IDENTIFIERS.name, f"{number}\t{self._case}\tFA")

    def _siblings(self) -> None:
        """Let some children be the siblings of the one before."""
        if self._lead and self.invented.random.random() < 0.05:
            number = self.rows[LEADS.name] + 1
            loaded = stamp(self.invented.until)
            self._line(
                LEADS.name,
                f"{number}\t{self._lead}\t{self._case}\t{loaded}\t{loaded}\t\t\t\t\t\t1",
            )
        self._lead = self._case


def _dated(values: Mapping[str, str], dates: Mapping[str, str]) -> dict[str, str]:
    return {name: value.format_map(dates) for name, value in values.items()}


def _comma(values: Mapping[str, str]) -> str:
    return ",".join([values.get(heading, "") for heading in CROSSWALK.headings])


def _stranger(case: int) -> int:
    """Return a case key that no table has."""
    return case + 90_000_000


def _spoiled(line: str, table: Table, story: Story | None) -> str:
    """Return a line as the story's fault left it."""
    if story is None or story.spoil is None or story.spoil[0] is not table:
        return line
    fields = line.split("\t")
    match story.spoil[1]:
        case Spoil.TAB:
            fields.insert(len(fields) // 2, "")
        case Spoil.TAB_AT_END:
            fields[-1:] = ["", ""]
        case Spoil.CUT_SHORT:
            del fields[-3:]
        case Spoil.TWICE | Spoil.OPEN_QUOTE | Spoil.STRANGER:
            raise AssertionError("a fault of the crosswalk")
    return "\t".join(fields)


def answers(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of a docket's `answers.csv`, by heading."""
    with (folder / ANSWERS).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
