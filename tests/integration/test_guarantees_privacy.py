"""Guarantee 8: no plain personal data outside the two databases, on the whole way of a notice."""

import base64
import csv
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from services.embedded import Servers, attach
from services.exchange.process import delivery_of
from tests.agencies import a_notice, two_agencies
from tests.benches.ground import free_port
from tests.command_line import CommandLine, introduce, until
from tests.steps import TO_ICE, on_stream, relay, rows, sent

# One child of the docket, one whose row is rejected, and one whose notice becomes a dead letter.
CHILDREN = (
    ("A208375614", "Zyxwvutina", "Qwertzuiop", "2014-08-23", "7349 Unrepeatable Crescent"),
    ("A209486725", "Yvutsrqina", "Lkjhgfdsa", "2015-03-17", "8251 Incomparable Terrace"),
    ("A207294816", "Xwvutsrina", "Mnbvcxyas", "2013-11-29", "9463 Inimitable Boulevard"),
)


def spellings(text: str) -> Iterator[bytes]:
    """Yield a text as it may lie in bytes: plain, and within base64, also within base64 twice."""
    plain = {text.encode(), text.removeprefix("A").encode()}
    if text.count("-") == 2:
        plain.add(text.replace("-", "").encode())
    for each in plain:
        yield each
        for once in in_base64(each):
            yield once
            yield from in_base64(once)


def in_base64(part: bytes) -> set[bytes]:
    """Return what of `part` is the same in base64 whatever stands before and after it."""
    found = set()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + part)
        whole = encoded[-(-before * 4 // 3) : (before + len(part)) * 4 // 3]
        found |= {whole, whole.replace(b"+", b"-").replace(b"/", b"_")}
    return found


NEEDLES = {spelling: text for child in CHILDREN for text in child for spelling in spellings(text)}


def leaks(places: Iterable[tuple[str, bytes]]) -> set[tuple[str, str]]:
    """Return where which value stands."""
    return {
        (place, text) for place, found in places for needle, text in NEEDLES.items()
        if needle in found
    }  # fmt: skip


def test_the_scan_finds_what_is_there() -> None:
    for text in CHILDREN[0]:
        for before in range(4):
            hidden = base64.urlsafe_b64encode(b"." * before + text.encode() + b"..")
            assert leaks([("here", b"<" + hidden + b">")])
            assert leaks([("here", base64.b64encode(b'{"' + hidden + b'"}'))])
    assert leaks([("here", b"born on 20140823")])
    assert not leaks([("here", b"nothing of anybody")])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("privacy") / "home"


@pytest.fixture(scope="module")
def servers(home: Path) -> Iterator[Servers]:
    with attach(home) as servers:
        yield servers


def a_docket(noticebus: CommandLine, folder: Path) -> None:
    """Make a docket with a missed hearing of one child and an unreadable row of another."""
    noticebus.json(f"docket synthesize {folder} --rows 120 --missed 6 --seed 5")
    with (folder / "answers.csv").open(encoding="utf-8", newline="") as file:
        sends = {row["IDNCASE"] for row in csv.DictReader(file) if row["expected"] == "send"}
    with (folder / "crosswalk.csv").open(encoding="utf-8", newline="") as file:
        heading, *crosswalk = csv.reader(file)
    whole = [row for row in crosswalk if len(row) == len(heading)]
    missed = next(row for row in whole if row[0] in sends)
    unreadable = next(row for row in whole if row[0] not in sends)
    for row, child in ((missed, CHILDREN[0]), (unreadable, CHILDREN[1])):
        names = ("a_number", "given_name", "family_name", "birth_date", "address_line1")
        for name, said in zip(names, child, strict=True):
            row[heading.index(name)] = said
    unreadable[heading.index("uac")] = CHILDREN[1][2]
    with (folder / "crosswalk.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([heading, *crosswalk])


def by_a_hand(child: tuple[str, ...]) -> dict[str, object]:
    """Return what a person types of a missed hearing."""
    number, given, family, birth, street = child
    return {
        "a_number": number,
        "given_name": given,
        "family_name": family,
        "birth_date": birth,
        "hearing": "2026-03-03T09:00",
        "court": "HOU",
        "office": "HOU",
        "address_last_known": {
            "line1": street,
            "city": "Houston",
            "state": "TX",
            "zip": "77001",
            "source": "crosswalk",
            "as_of": "2024-01-01",
        },
    }


def outside_the_databases(home: Path, servers: Servers) -> Iterator[tuple[str, bytes]]:
    """Yield all bytes that are not a database's own: files, what Redis holds, ledger records."""
    databases = [found.parent for found in home.rglob("PG_VERSION")]
    for path in home.rglob("*"):
        log = path.suffix == ".log"
        if path.is_file() and (log or not any(path.is_relative_to(each) for each in databases)):
            yield str(path.relative_to(home)), path.read_bytes()
            yield "a file's name", str(path.relative_to(home)).encode()
    with Redis.from_url(servers.redis_url) as redis:
        for key in redis.scan_iter():
            for _, fields in redis.xrange(key):
                yield key.decode(), b"".join(fields.values())
    for agency, url in servers.database_urls.items():
        with psycopg.connect(url) as connection:
            for (record,) in connection.execute("SELECT record FROM record"):
                yield f"the ledger of {agency}", record


async def test_the_words_of_a_failure_stay_out_of_logs_attempts_and_refusals(
    tmp_path: Path,
    database: Callable[[str], str],
    redis_url: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ", ".join(CHILDREN[0])
    async with two_agencies(tmp_path / "home", database, redis_url) as pair:
        pair.hhs_noted.fail = lambda _: ValueError(words)
        (entry,) = await sent(pair, a_notice())
        delivery = delivery_of(pair.hhs, pair.hhs_noted)
        for _ in range(5):
            with pytest.raises(ValueError, match="Zyx") as failed:
                await delivery.take([entry])
            set_aside = await delivery.failed(entry, failed.value)
        assert set_aside
        await relay(pair.hhs, TO_ICE)

        places = [("standard error", capfd.readouterr().err.encode())]
        for table in ("attempt", "dead_letter", "record", "alarm"):
            found = await rows(pair.hhs, f"SELECT row_to_json(t)::text FROM {table} AS t")  # noqa: S608
            places += [(table, row[0].encode()) for row in found]
        found = await rows(pair.hhs, "SELECT record FROM record")
        places += [("record", bytes(row[0])) for row in found]
        places += [("stream", entry.jws) for entry in await on_stream(pair, TO_ICE)]
    assert b"attempt failed" in places[0][1]
    assert leaks(places) == set()


@pytest.mark.timeout(300)
def test_nothing_on_the_whole_way_says_who_the_child_is(home: Path, servers: Servers) -> None:
    ports = {agency: free_port() for agency in ("ice", "hhs")}
    processes = {
        agency: CommandLine(home, {"NOTICEBUS_HTTP_PORT": str(port)})
        for agency, port in ports.items()
    }
    noticebus = CommandLine(home)
    for agency in ("ice", "hhs"):
        assert noticebus(f"--agency {agency} keys generate").code == 0
    introduce(noticebus, "ice")
    introduce(noticebus, "hhs")
    docket = home.parent / "release"
    a_docket(noticebus, docket)
    said: list[tuple[str, bytes]] = []

    def say(line: str, *more: str, code: int = 0) -> str:
        done = noticebus(line, *more)
        assert done.code == code, done.err
        said.append((line, (done.out + done.err).encode()))
        return done.out

    imported = json.loads(say(f"docket import {docket} -o json", code=5))
    assert imported["recorded"] >= 1
    assert Path(imported["rejects"]).is_relative_to(home)
    with ExitStack() as running:
        for agency, process in processes.items():
            running.enter_context(process.running(agency))
        until("receipts", lambda: states(noticebus) <= {"receipted", "to_confirm"})
        for _ in range(imported["recorded"]):
            taken = json.loads(say("--agency hhs queue take --as clerk -o json"))
            say(f"--agency hhs queue outcome {taken['notice_id']} SAFE_AT_ADDRESS --as clerk")
        say("--agency ice keys rotate")
        stranger = noticebus("notice send -o json", stdin=json.dumps(by_a_hand(CHILDREN[2])))
        assert stranger.code == 0, stranger.err
        until("a dead letter", lambda: bool(noticebus.json("--agency hhs dead list")["items"]))
        [letter] = noticebus.json("--agency hhs dead list --letters")["items"]
        say(f"--agency hhs dead show {letter['dead_id']}")
        for port in ports.values():
            for page in ("metrics", "ready"):
                said.append((page, fetched(f"http://127.0.0.1:{port}/{page}")))
        for line in (
            "notice list",
            "--agency hhs queue list --state all",
            "--agency ice report usage",
            "--agency ice overdue",
        ):
            say(f"{line} -o json")
        say("--agency hhs replay plan --to store -o json")

        assert leaks([*said, *outside_the_databases(home, servers)]) == set()
    assert leaks(outside_the_databases(home, servers)) == set()


def states(noticebus: CommandLine) -> set[str]:
    return {item["state"] for item in noticebus.json("notice list")["items"]}


def fetched(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own, on loopback
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())
