"""An invented docket is read to exactly the answers beside it, flat in memory, spilling nothing."""

import csv
import hashlib
import subprocess
import sys
import threading
from collections import Counter
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest

from schemas.errors import RejectedError, UnavailableError
from schemas.notice import Notice
from services.ice.docket.findings import CourtKeys, Finding
from services.ice.docket.rejects import write_rejects
from services.ice.docket.scan import Docket
from services.ice.docket.stories import ASKED, NONE, REJECTED, SENT
from services.ice.docket.synthesize import answers, synthesize
from services.ice.revisions import check
from tests.docket_made import a_docket, an_order

UNTIL = date(2026, 11, 20)
AS_OF = date(2026, 11, 23)

Answer = tuple[str, str, str]
"""Expected, outcome, code."""


def opened(folder: Path) -> Docket:
    return Docket.open(folder, spill=folder.parent / "spill", as_of=AS_OF)


def found(findings: list[Finding]) -> dict[CourtKeys, Answer]:
    return {
        finding.keys: (str(finding.decision), finding.content["outcome"], "")
        for finding in findings
    }


def expected(folder: Path) -> tuple[dict[CourtKeys, Answer], Counter[str]]:
    """Return what is to be found, and how often each code is to be rejected."""
    notices: dict[CourtKeys, Answer] = {}
    codes: Counter[str] = Counter()
    for answer in answers(folder):
        if answer["expected"] == "reject":
            codes[answer["code"]] += 1
        elif answer["expected"] != "none":
            names = ("IDNCASE", "IDNPROCEEDING", "IDNSCHEDULE")
            said = (answer["expected"], answer["outcome"], answer["code"])
            notices[CourtKeys(*(int(answer[name]) for name in names))] = said
    return notices, codes


@pytest.mark.parametrize("seed", [1, 2])
def test_reading_comes_to_the_answers_row_by_row(tmp_path: Path, seed: int) -> None:
    made = synthesize(tmp_path / "docket", rows=4_000, missed=400, seed=seed, until=UNTIL)

    with opened(tmp_path / "docket") as docket:
        findings = list(docket.findings())
        rejected = Counter(reject.code for reject in docket.rejects)

    notices, codes = expected(tmp_path / "docket")
    assert found(findings) == notices
    assert rejected == codes
    assert len(notices) == made.expected["send"] + made.expected["confirm"] == 400
    assert docket.rows == made.rows


def test_every_story_is_told_in_a_docket_of_two_thousand(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "docket", rows=2_000, missed=200, seed=7, until=UNTIL)

    # Rows that contradict each other are two rejects of one story.
    assert made.expected["reject"] == len(REJECTED) + 1
    assert made.expected["send"] >= len(SENT)
    assert made.expected["confirm"] >= len(ASKED)
    assert len(REJECTED) + len(NONE) < 2_000 - 200


def test_answers_have_a_line_for_each_schedule_row(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "docket", rows=1_000, missed=50, seed=3, until=UNTIL)

    rows = [row["IDNSCHEDULE"] for row in answers(tmp_path / "docket") if row["IDNSCHEDULE"]]

    assert len(rows) == len(set(rows)) == made.rows["tbl_schedule"]
    assert made.rows["B_TblProceeding"] == 1_000
    assert 2.2 < made.rows["tbl_schedule"] / 1_000 < 2.6


def test_every_finding_makes_a_valid_notice(tmp_path: Path) -> None:
    synthesize(tmp_path / "docket", rows=2_000, missed=200, seed=5, until=UNTIL)

    with opened(tmp_path / "docket") as docket:
        for finding in docket.findings():
            notice = made_notice(finding)
            assert (notice.base_city_code, notice.hearing_on) == (
                finding.base_city,
                finding.hearing_on,
            )


def made_notice(finding: Finding) -> Notice:
    content = {**finding.content, "detected_at": "2026-11-23T08:00:00.000000Z"}
    return check(content, UUID("019c0de0-1111-7222-8333-000000000001"))[0]


def test_findings_of_a_child_stand_together_and_repeat_in_the_same_order(tmp_path: Path) -> None:
    synthesize(tmp_path / "docket", rows=2_000, missed=200, seed=5, until=UNTIL)

    with opened(tmp_path / "docket") as docket:
        once, again = list(docket.findings()), list(docket.findings())

    order = [(finding.a_number, finding.hearing_on, finding.base_city) for finding in once]
    assert once == again
    assert order == sorted(order)
    assert len(order) == len(set(order))


def test_same_seed_and_day_give_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("one", 4), ("two", 4), ("other", 5)):
        synthesize(tmp_path / name, rows=600, missed=60, seed=seed, until=UNTIL)
        files = sorted((tmp_path / name).iterdir())
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])

    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("other", [2, 99, -1])
def test_two_seeds_are_two_dockets(tmp_path: Path, other: int) -> None:
    """Imported into one home, no child of one is taken for a child of the other."""
    keys: list[set[str]] = []
    for seed in (1, other):
        folder = tmp_path / str(seed)
        synthesize(folder, rows=600, missed=60, seed=seed, until=UNTIL)
        with opened(folder) as docket:
            findings = list(docket.findings())
        told = [[f"{name} {value}" for name, value in row.items()] for row in schedule(folder)]
        children = {finding.a_number for finding in findings}
        assert len(children) == 60
        keys.append(children.union(*told))

    assert not keys[0] & keys[1]


def schedule(folder: Path) -> list[dict[str, str]]:
    """Return the keys of each schedule row."""
    names = ("IDNCASE", "IDNPROCEEDING", "IDNSCHEDULE")
    return [{name: row[name] for name in names} for row in answers(folder) if row["IDNSCHEDULE"]]


def test_digest_is_that_of_the_files(tmp_path: Path) -> None:
    folder = an_order(tmp_path / "docket").write()
    with opened(folder) as docket:
        before = docket.digest
    (folder / "crosswalk.csv").write_bytes((folder / "crosswalk.csv").read_bytes() + b"\n")

    with opened(folder) as docket:
        assert docket.digest != before
    assert docket.release == "docket"


def test_how_many_wait_for_a_person_can_be_chosen(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "docket", rows=300, missed=100, confirm=0, seed=1, until=UNTIL)

    assert (made.expected["send"], made.expected.get("confirm", 0)) == (100, 0)


def test_small_docket_holds_what_fits(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "docket", rows=5, missed=5, seed=1, until=UNTIL)

    assert made.expected["send"] == made.rows["B_TblProceeding"] == 5


def test_more_missed_than_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="NB-1042"):
        synthesize(tmp_path / "docket", rows=5, missed=6, seed=1)


def test_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    with pytest.raises(RejectedError, match="NB-1043"):
        synthesize(tmp_path, rows=5, missed=1, seed=1)

    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_docket_has_the_quirks_of_the_courts(tmp_path: Path) -> None:
    folder = tmp_path / "docket"
    synthesize(folder, rows=2_000, missed=200, seed=7, until=UNTIL)
    cases, schedule = ((folder / f"{n}.csv").read_bytes() for n in ("A_TblCase", "tbl_schedule"))
    proceedings = (folder / "B_TblProceeding.csv").read_bytes()

    with pytest.raises(UnicodeDecodeError):
        cases.decode()
    assert (folder / "crosswalk.csv").read_bytes().startswith(b"IDNCASE,a_number,given_name,")
    assert b"GENDER" in cases.splitlines()[0]
    assert b"ADJ_MED\t" in schedule.splitlines()[0]
    assert b"\0" in proceedings
    assert "Ñ".encode() in proceedings
    assert b"\tNA\t" in schedule
    assert b"\t830\t" in schedule
    assert b"\n\n" in schedule


def test_rejects_file_names_line_code_and_fix_and_no_value(tmp_path: Path) -> None:
    synthesize(tmp_path / "docket", rows=2_000, missed=200, seed=7, until=UNTIL)
    with opened(tmp_path / "docket") as docket:
        for _ in docket.findings():
            pass
        count = write_rejects(tmp_path / "rejects.csv", docket.rejects)
        found = len(list(docket.rejects))

    with (tmp_path / "rejects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "line", "code", "fix"]
    assert len(rows) == count == found
    text = (tmp_path / "rejects.csv").read_text(encoding="utf-8")
    assert all(row["fix"] for row in rows)
    for value in secret_values(tmp_path / "docket"):
        assert value not in text, "a value of a row is in the rejects"


def secret_values(folder: Path) -> set[str]:
    """Return names, A-numbers and case keys of a docket."""
    with (folder / "crosswalk.csv").open(encoding="utf-8", newline="") as file:
        lines = [line.rstrip("\n").split(",") for line in file][1:]
    return {
        value
        for line in lines
        for value in (line[0], line[1], line[3])
        if len(value) > 5 and value not in {"A.2.a", "0000000"}
    }


def test_reading_spills_only_what_is_encrypted(tmp_path: Path) -> None:
    """Memory is made so tight that the tables cannot stay in it."""
    docket = a_docket(tmp_path / "docket")
    for number in range(2, 120_000):
        docket.child(number + 1_000, number=number, family_name="Plainname")
        docket.case(number + 1_000, UPDATED_CITY="PLAINCITY")
        docket.proceeding(number, IDNCASE=number + 1_000, HEARING_LOC_CODE="PLAINTEXT")
        docket.hearing(number, IDNCASE=number + 1_000, IDNPROCEEDING=number, ADJ_RSN="17")
    folder = docket.write()
    spill = folder.parent / "spill"
    watch = Watch(spill, (b"PLAINCITY", b"Plainname", b"2026-05-04 00:00"))

    with watch, Docket.open(folder, spill=spill, as_of=AS_OF, memory_limit="60MB") as opened_tight:
        assert list(opened_tight.findings()) == []
        watch.look()

    assert watch.bytes_seen > 100_000, "nothing was spilled: the test shows nothing"
    assert not watch.plain
    assert not spill.exists()


class Watch:
    """Looks into a folder again and again while the block lasts."""

    def __init__(self, folder: Path, words: tuple[bytes, ...]) -> None:
        self.folder, self.words = folder, words
        self.plain: set[bytes] = set()
        self.bytes_seen = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.look()

    def look(self) -> None:
        """Look once."""
        contents = [read_if_there(path) for path in self.folder.glob("*")]
        self.bytes_seen = max(self.bytes_seen, sum(map(len, contents)))
        self.plain |= {word for word in self.words for content in contents if word in content}


def read_if_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_too_little_memory_and_no_disk_is_told_as_such(tmp_path: Path) -> None:
    folder = an_order(tmp_path / "docket").write()

    with pytest.raises(UnavailableError, match="NB-1041"):
        Docket.open(folder, spill=tmp_path / "spill", as_of=AS_OF, memory_limit="1MB")

    assert not (tmp_path / "spill").exists()


# The peak since this program began: `ru_maxrss` would count the test process it was forked from.
MEASURE = """
import sys
from datetime import date
from pathlib import Path
from services.ice.docket.scan import Docket
with Docket.open(Path(sys.argv[1]), spill=Path(sys.argv[2]), as_of=date(2026, 11, 23)) as docket:
    count = sum(1 for _ in docket.findings())
status = Path("/proc/self/status").read_text()
print(count, int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


def test_large_docket_is_read_in_little_memory(tmp_path: Path) -> None:
    synthesize(tmp_path / "docket", rows=100_000, missed=1_000, seed=1, until=UNTIL)

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "docket", tmp_path / "spill"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    count, memory_mb = map(int, done.stdout.split())
    assert count == 1_000
    assert memory_mb < 300
