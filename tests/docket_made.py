"""Small dockets written row by row: valid defaults, and the test states only what matters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from services.ice.docket.layout import (
    CASES,
    CROSSWALK,
    IDENTIFIERS,
    JUVENILES,
    LEADS,
    PRIORITIES,
    PROCEEDINGS,
    SCHEDULE,
    Table,
)
from services.ice.docket.scan import Docket

TODAY = date(2026, 11, 23)
DAY = "2026-05-04 00:00:00.000"
ORDER: dict[str, Any] = {"ABSENTIA": "Y", "DEC_CODE": "X", "COMP_DATE": DAY, "CASE_TYPE": "RMV"}
NO_SHOW: dict[str, Any] = {"ADJ_RSN": "11"}

CASE, PROCEEDING, HEARING = 500, 700, 900


@dataclass(slots=True)
class DocketMade:
    """A docket in a folder; each row is added by its columns, and `write` writes them all."""

    folder: Path
    lines: dict[str, list[str]] = field(default_factory=dict)
    headings: dict[str, Sequence[str]] = field(default_factory=dict)
    encodings: dict[str, str] = field(default_factory=dict)

    def add(self, table: Table, **values: Any) -> "DocketMade":
        """Add a row; columns that are not named are empty. Returns the docket."""
        comma = "," if table is CROSSWALK else "\t"
        unknown = values.keys() - set(table.headings)
        assert not unknown, unknown
        line = comma.join(str(values.get(heading, "")) for heading in table.headings)
        return self.line(table, line)

    def line(self, table: Table, line: str) -> "DocketMade":
        """Add a line as it is."""
        self.lines.setdefault(table.name, []).append(line)
        return self

    def case(self, key: int = CASE, /, **values: Any) -> "DocketMade":
        """Add a case."""
        return self.add(
            CASES, **{"IDNCASE": key, "NAT": "GT", "LANG": "SP", "CUSTODY": "N"} | values
        )

    def child(self, key: int = CASE, /, *, number: int = 1, **values: Any) -> "DocketMade":
        """Add a child's row to the crosswalk; children differ by `number`."""
        defaults: dict[str, Any] = {
            "IDNCASE": key,
            "a_number": f"A{200_000_000 + number}",
            "given_name": "Invented",
            "family_name": "Nosuchchild",
            "birth_date": "2012-05-04",
            "uac": "Y",
            "aor_code": "HOU",
            "address_line1": "12 Nonesuch St",
            "address_city": "Houston",
            "address_state": "TX",
            "address_zip": "77000",
            "address_as_of": "2026-01-02",
            "nta_served": "Y",
        }
        return self.add(CROSSWALK, **defaults | values)

    def proceeding(self, key: int | str = PROCEEDING, /, **values: Any) -> "DocketMade":
        """Add a proceeding that is open and says nothing."""
        defaults: dict[str, Any] = {
            "IDNPROCEEDING": key,
            "IDNCASE": CASE,
            "BASE_CITY_CODE": "HOU",
            "CUSTODY": "N",
            "CASE_TYPE": "RMV",
        }
        return self.add(PROCEEDINGS, **defaults | values)

    def hearing(self, key: int | str = HEARING, /, **values: Any) -> "DocketMade":
        """Add a schedule row of a hearing in Houston that was put off."""
        defaults: dict[str, Any] = {
            "IDNSCHEDULE": key,
            "IDNPROCEEDING": PROCEEDING,
            "IDNCASE": CASE,
            "REC_TYPE": "A",
            "HEARING_LOC_CODE": "HOU",
            "BASE_CITY_CODE": "HOU",
            "CAL_TYPE": "M",
            "ADJ_DATE": DAY,
            "ADJ_TIME_START": "0830",
            "ADJ_RSN": "17",
            "ADJ_MEDIUM": "P",
            "SCHEDULE_TYPE": "MR",
        }
        return self.add(SCHEDULE, **defaults | values)

    def flag(self, key: int = CASE, *, juvenile: str = "", priority: str = "") -> "DocketMade":
        """Flag a case as the court does."""
        if juvenile:
            self.add(JUVENILES, idnJuvenileHistory=1, idnCase=key, idnJuvenile=juvenile)
        if priority:
            self.add(PRIORITIES, idnCasePriHistory=1, idnCase=key, casePriority_code=priority)
        return self

    def sibling(self, lead: int, rider: int, **values: Any) -> "DocketMade":
        """Let two children go to court together."""
        return self.add(
            LEADS, **{"idnLeadRider": 1, "idnLeadCase": lead, "idnRiderCase": rider} | values
        )

    def write(self) -> Path:
        """Write the tables; returns their folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for table in (CASES, PROCEEDINGS, SCHEDULE, JUVENILES, PRIORITIES, CROSSWALK):
            self._write(table)
        for table in (IDENTIFIERS, LEADS):
            if table.name in self.lines:
                self._write(table)
        return self.folder

    def _write(self, table: Table) -> None:
        comma = "," if table is CROSSWALK else "\t"
        heading = comma.join(self.headings.get(table.name, table.headings))
        lines = [heading, *self.lines.get(table.name, [])]
        text = "".join(f"{line}\n" for line in lines)
        encoding = self.encodings.get(table.name, "utf-8")
        (self.folder / table.file).write_bytes(text.encode(encoding))


def a_docket(folder: Path, **crosswalk: Any) -> DocketMade:
    """Return a docket of one child with one case, and nothing that was missed."""
    return DocketMade(folder).case().child(**crosswalk)


def an_order(folder: Path, **crosswalk: Any) -> DocketMade:
    """Return a docket of one child with one order made in absentia."""
    return a_docket(folder, **crosswalk).proceeding(**ORDER).hearing(ADJ_RSN="8B")


def open_docket(folder: Path) -> Docket:
    """Open a docket as of a fixed day."""
    return Docket.open(folder, spill=folder.parent / "spill", as_of=TODAY)


def rejected(docket: Docket) -> list[tuple[str, int, str]]:
    """Read a docket to its end; returns file, line and code of its rejects."""
    for _ in docket.findings():
        pass
    return [(reject.file, reject.line, reject.code) for reject in docket.rejects]
