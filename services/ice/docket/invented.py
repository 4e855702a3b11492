"""Invented people, places and rows, from one seed. Nobody in here lives.

Plain rows come from pools of ready-made lines, so that millions of them are a matter of seconds;
only the rows of a story are put together column by column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random

from schemas import codes
from schemas.codes import Treatment
from services.ice.docket.layout import CASES, PROCEEDINGS, SCHEDULE, Table

GIVEN_NAMES = (
    "Example", "Sample", "Invented", "Specimen", "Pretend", "Madeup", "Fictia", "Imagínate",
    "Nobody", "Placeholder", "Testa", "Demo", "Ejemplo", "Muestra", "Inventada", "Ficción",
)  # fmt: skip
FAMILY_NAMES = (
    "Nosuchchild", "Notreal", "Ñoñez-Inventado", "De la Ficción", "Testcase", "Madeup-Pérez",
    "Nowhere", "Imaginario", "Samplesson", "Fabricado", "O'Invented", "Phantasie",
)  # fmt: skip
STREETS = ("Invented Ave", "Nonesuch St", "Fiction Blvd", "Pretend Rd", "Calle Inexistente")

# Courts with a place in them, its ZIP code, its office: enough to look like the whole country.
PLACES = (
    ("HOU", "Houston", "TX", "77000", "HOU"), ("DAL", "Dallas", "TX", "75200", "DAL"),
    ("LOS", "Los Angeles", "CA", "90000", "LOS"), ("SFR", "San Francisco", "CA", "94100", "SFR"),
    ("NYC", "New York", "NY", "10000", "NYC"), ("MIA", "Miami", "FL", "33100", "MIA"),
    ("CHI", "Chicago", "IL", "60600", "CHI"), ("BAL", "Baltimore", "MD", "21200", "BAL"),
    ("WAS", "Arlington", "VA", "22200", "WAS"), ("ATL", "Atlanta", "GA", "30300", "ATL"),
    ("CHL", "Charlotte", "NC", "28200", "ATL"), ("PHI", "Philadelphia", "PA", "19100", "PHI"),
    ("PHO", "Phoenix", "AZ", "85000", "PHO"), ("SEA", "Seattle", "WA", "98100", "SEA"),
    ("DEN", "Denver", "CO", "80200", "DEN"), ("BLM", "Fort Snelling", "MN", "55100", "SPM"),
    ("SLC", "Salt Lake City", "UT", "84100", "SLC"), ("AGA", "Hagåtña", "GU", "96910", "SFR"),
)  # fmt: skip

_POOL = 1024
_NATIONALITIES = ("GT", "HO", "ES", "MX", "EC", "NU", "HA", "CH", "??")
_LANGUAGES = ("SP", "SP", "SP", "ENG", "MAM", "QUI", "KEK", "IXL", "???")
_TIMES = ("830", "0830", "900", "0900", "1000", "1030", "1300", "1330", "1500")
_TRAILING_YEARS = 6
# Numbers that were never given out: the series starts at 900 million and has 100 million. Each
# block of them is one seed's, and one seed's alone as long as its docket has no more children.
_FIRST_NUMBER, _NUMBERS = 900_000_000, 100_000_000
_BLOCKS = 100


def stamp(day: date) -> str:
    """Return a date as the court writes it."""
    return f"{day.isoformat()} 00:00:00.000"


@dataclass(slots=True)
class Invented:
    """A source of invented values; the same seed and last day give the same values in order.

    Hearings lie in the six years up to `until`; `children` counts those invented so far. Two seeds
    that differ modulo 100 have no A-number in common, up to a million children each.
    """

    seed: int
    until: date
    random: Random = field(init=False)
    children: int = 0
    _adult_proceedings: list[str] = field(init=False)
    _plain_proceedings: list[str] = field(init=False)
    _adult_hearings: list[str] = field(init=False)
    _plain_hearings: list[str] = field(init=False)
    _cases: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)  # noqa: S311 - invented people need no secrets
        self._adult_proceedings = [self._any_proceeding(adult=True) for _ in range(_POOL)]
        self._plain_proceedings = [self._any_proceeding(adult=False) for _ in range(_POOL)]
        self._adult_hearings = [self._any_hearing(adult=True) for _ in range(_POOL)]
        self._plain_hearings = [self._any_hearing(adult=False) for _ in range(_POOL)]
        self._cases = [
            tail_of(CASES, {**self.case(self.place()), "CASEPRIORITY_CODE": "NA"}, keys=1)
            for _ in range(_POOL)
        ]

    @property
    def block(self) -> int:
        """Which of 100 ranges of A-numbers and court keys is this seed's."""
        return self.seed % _BLOCKS

    def number(self, below: int) -> int:
        """Return a number from 0 up to but not including `below`."""
        return int(self.random.random() * below)

    def pick(self, values: Sequence[str]) -> str:
        """Return one of the values."""
        return values[int(self.random.random() * len(values))]

    def day(self) -> date:
        """Return a day on which a court sits."""
        day = self.until - timedelta(days=1 + self.number(365 * _TRAILING_YEARS))
        return day - timedelta(days=max(0, day.weekday() - 4))

    def place(self) -> Sequence[str]:
        """Return court, city, state, ZIP code and office."""
        return PLACES[self.number(len(PLACES))]

    # What follows the keys of a plain row, ready to be written.

    def proceeding_line(self, *, adult: bool) -> str:
        """Return the columns of a proceeding behind its keys; only an adult's may be an order."""
        return self.pick(self._adult_proceedings if adult else self._plain_proceedings)

    def hearing_line(self, *, adult: bool) -> str:
        """Return the columns of a schedule row behind its keys; a child's is never missed."""
        return self.pick(self._adult_hearings if adult else self._plain_hearings)

    def case_line(self) -> str:
        """Return the columns of an adult's case behind its key."""
        return self.pick(self._cases)

    # Rows by column.

    def case(self, place: Sequence[str]) -> dict[str, str]:
        """Return a child's case."""
        _, city, state, zip_code, _ = place
        return {
            "ALIEN_CITY": city.upper(),
            "ALIEN_STATE": state,
            "ALIEN_ZIPCODE": zip_code,
            "UPDATED_CITY": city.upper(),
            "UPDATED_STATE": state,
            "UPDATED_ZIPCODE": zip_code,
            "NAT": self.pick(_NATIONALITIES),
            "LANG": self.pick(_LANGUAGES),
            "CUSTODY": self.pick("NNNR"),
            "CASE_TYPE": "RMV",
            "E_28_DATE": self.pick(("", "", stamp(self.until))),
            "C_BIRTHDATE": f"{1 + self.number(12)}/{self.until.year - 5 - self.number(12)}",
            "Sex": self.pick("MF"),
            "CASEPRIORITY_CODE": "UC",
        }

    def proceeding(self, place: Sequence[str], day: date) -> dict[str, str]:
        """Return a proceeding that is still open."""
        return {
            "OSC_DATE": stamp(day - timedelta(days=200)),
            "INPUT_DATE": stamp(day - timedelta(days=190)),
            "BASE_CITY_CODE": place[0],
            "HEARING_LOC_CODE": place[0],
            "IJ_CODE": self.pick(("QQA", "QQB", "QQC")),
            "HEARING_DATE": stamp(day),
            "HEARING_TIME": self.pick(_TIMES),
            "ABSENTIA": self.pick(("N", "")),
            "CUSTODY": "N",
            "CASE_TYPE": "RMV",
            "NAT": "GT",
            "LANG": "SP",
            "CORRECTIONAL_FAC": self.pick(("", "N/A", "PEÑITAS")),
        }

    def hearing(self, place: Sequence[str], day: date, adj_rsn: str) -> dict[str, str]:
        """Return a schedule row of a hearing that was held."""
        return {
            "GENERATION": "1",
            "SUB_GENERATION": "1",
            "REC_TYPE": self.pick("AX"),
            "LANG": "SP",
            "HEARING_LOC_CODE": place[0],
            "BASE_CITY_CODE": place[0],
            "IJ_CODE": self.pick(("QQA", "QQB", "QQC")),
            "INPUT_DATE": stamp(day - timedelta(days=60)),
            "INPUT_TIME": self.pick(_TIMES),
            "CAL_TYPE": self.pick("MMI"),
            "ADJ_DATE": stamp(day),
            "ADJ_TIME_START": self.pick(_TIMES),
            "ADJ_TIME_STOP": "1700",
            "ADJ_RSN": adj_rsn,
            "ADJ_MEDIUM": self.pick("PPV"),
            "SCHEDULE_TYPE": self.pick(("MM", "MR", "II", "NA")),
            "NOTICE_CODE": self.pick(("NA", "")),
        }

    def person(self, place: Sequence[str], born: str) -> dict[str, str]:
        """Return a child's row of the crosswalk; `born` is the court's month."""
        self.children += 1
        _, city, state, zip_code, office = place
        month, year = born.split("/")
        return {
            "a_number": f"A{self._a_number()}",
            "given_name": self.pick(GIVEN_NAMES),
            "family_name": self.pick(FAMILY_NAMES),
            "birth_date": f"{year}-{int(month):02}-{1 + self.number(28):02}",
            "uac": "Y",
            "aor_code": office,
            "address_line1": f"{100 + self.number(9900)} {self.pick(STREETS)}",
            "address_unit": self.pick(("", "", "Apt 1", "Unit 2B")),
            "address_city": city,
            "address_state": state,
            "address_zip": zip_code,
            "address_as_of": (self.until - timedelta(days=self.number(900))).isoformat(),
            "nta_served": self.pick(("Y", "Y", "N", "")),
            "release_date": (self.until - timedelta(days=365 * _TRAILING_YEARS + 200)).isoformat(),
        }

    def _a_number(self) -> int:
        before = self.block * (_NUMBERS // _BLOCKS)
        return _FIRST_NUMBER + (before + self.children) % _NUMBERS

    def _any_proceeding(self, *, adult: bool) -> str:
        day, place = self.day(), self.place()
        values = self.proceeding(place, day)
        if adult and self.random.random() < 0.4:
            values |= {"ABSENTIA": self.pick("YN"), "DEC_CODE": "X", "COMP_DATE": stamp(day)}
        return tail_of(PROCEEDINGS, values, keys=2)

    def _any_hearing(self, *, adult: bool) -> str:
        reasons = [
            code
            for code, said in codes.adjournments().codes.items()
            if adult or said.treatment is Treatment.NONE
        ]
        values = self.hearing(self.place(), self.day(), self.pick((*reasons, "", "")))
        if not adult or self.random.random() < 0.99:
            return tail_of(SCHEDULE, values, keys=3)
        # Dates out of range in rows that nobody needs: not worth a reject.
        return tail_of(SCHEDULE, {**values, "ADJ_DATE": "0201-01-01 00:00:00.000"}, keys=3)


def tail_of(table: Table, values: Mapping[str, str], *, keys: int) -> str:
    """Return the columns of a row behind its first `keys` ones."""
    return "\t".join([values.get(heading, "") for heading in table.headings[keys:]])
