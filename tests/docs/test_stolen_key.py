"""The drill on the page is run line by line, against a thief with a copy of the folder of keys."""

import asyncio
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from schemas.canonical import format_time
from schemas.envelope import seal
from schemas.jose import SigningKey
from schemas.party import fingerprint
from services.bus import Publisher
from services.exchange.agency import Agency
from services.hhs.casework import CaseWork
from services.ice.effects import IceEffects
from services.keys import KeyRing
from tests.agencies import Pair, a_notice, running, two_agencies, until, value
from tests.command_line import CommandLine, Done
from tests.integration.test_cli_whole_way import SEND
from tests.steps import attributes_of, on_stream, settled

# The hearing lies back, so its notice goes with the backlog.
STREAM = "{ice.hhs.backlog.0}:out"
PAGE = Path(__file__).resolve().parents[2] / "docs/stolen-key.md"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


def lines() -> list[str]:
    """Return the command lines of the page, in their order."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [line.removeprefix("noticebus ") for block in blocks for line in block.splitlines()]


@dataclass
class Keeper:
    """Runs the lines of the page, each on its agency's own store."""

    pair: Pair
    left: list[str]

    async def next(self, begins: str, **places: str) -> Done:
        """Run the next line, which has to begin so, with these values in its places."""
        line = self.left.pop(0)
        assert line.startswith(begins), f"the page goes on with: {line}"
        for name, text in places.items():
            line = line.replace(name, text)
        done = await self.run(*shlex.split(line))
        assert done.code == 0, f"{line}: {done.err}"
        return done

    async def run(self, *words: str) -> Done:
        settings = (self.pair.hhs if "hhs" in words[:2] else self.pair.ice).settings
        command = CommandLine(
            settings.home,
            {
                "NOTICEBUS_DATABASE_URL": settings.database_url_required,
                "NOTICEBUS_REDIS_URL": settings.redis_url_required,
            },
        )
        return await asyncio.to_thread(command, words[0], *words[1:])


def forged(pair: Pair, genuine: Any, key: SigningKey) -> bytes:
    """Return a notice of the thief's own, under the stolen key, at the next sequence."""
    draft = a_notice()
    attributes = replace(
        genuine,
        id=uuid7(),
        subject=draft.notice_id,
        correlationid=draft.correlation_id,
        sequence=genuine.sequence + 7,
        commitment=draft.commitment,
    )
    to = pair.ice.directory.encrypt_to
    return seal(attributes, data=draft.body, signing=key, encrypt_to=to, salt=draft.salt)


async def receipted(agency: Agency, number: int) -> bool:
    return await value(agency, "SELECT count(*) FROM sent WHERE answer = 'receipt'") == number


@pytest.mark.timeout(180)
async def test_the_drill_holds_against_a_thief(pair: Pair, tmp_path: Path) -> None:
    keeper = Keeper(pair, lines())
    send = shlex.split(f"--agency ice {SEND}")
    async with running(pair.ice, IceEffects()):
        async with running(pair.hhs, CaseWork()):
            assert (await keeper.run(*send, "A200000601")).code == 0
            await until(lambda: receipted(pair.ice, 1), "the receipt of what is old")
            await until(lambda: settled(pair), "cosignatures")
        stolen_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
        copied = shutil.copytree(pair.ice.settings.keys_folder, tmp_path / "copied")
        await until(lambda: passed(stolen_at), "the second is over")
        # HHS takes nothing now: what ICE sends is under way, and not answered.
        sent = await keeper.run(*send, "A200000602", "-o", "json")
        notice_id = sent.data["notice_id"]
        await until(lambda: is_out(pair, sequence=2), "it is on the bus")

        await keeper.next("--agency ice keys show")
        await keeper.next("--agency ice keys revoke", TIME=format_time(stolen_at))
        await keeper.next("--agency ice party export")
        told = fingerprint((pair.ice.settings.home.parent / "ice.party").read_bytes())
        thief = KeyRing.load(copied).signing
        genuine = attributes_of((await on_stream(pair, STREAM))[-1])
        async with Publisher.open(pair.redis_url, settings=pair.ice.settings.bus) as publisher:
            await publisher.publish(STREAM, [forged(pair, genuine, thief)])
        trusted = await keeper.next("--agency hhs party trust", FINGERPRINT=told)
        assert f"says that others had it since {stolen_at:%Y-%m-%d %H:%M:%SZ}" in trusted.err
        await pair.hhs.reload()

        async with running(pair.hhs, CaseWork()):
            await until(lambda: receipted(pair.ice, 2), "the receipt of what went again")
            shown = await keeper.next("--agency ice notice show", ID=f"{notice_id} -o json")
            assert shown.data["state"] == "receipted"
            refused = await keeper.next("--agency hhs dead list")
            assert "NB-3180" in refused.out
            assert await value(pair.hhs, "SELECT count(*) FROM case_file") == 2
            await until(lambda: settled(pair), "all is sealed and cosigned")
        for agency in ("ice", "hhs"):
            verified = await keeper.next(f"--agency {agency} ledger verify")
            assert ("under a revoked key: no evidence" in verified.out) == (agency == "ice")
        built = await keeper.next("--agency ice proof build", ID=notice_id)
        assert built.code == 0
        checked = await keeper.next("proof verify")
        assert "COUNTS FOR NOTHING since" in checked.out
        for use in ("encryption", "log", "cosigner"):
            await keeper.next(f"--agency ice keys rotate {use}")
        assert keeper.left == ["--agency ice doctor"]
    # ICE's processes ended with the drill, and nothing else is wrong.
    doctor = await keeper.run("--agency", "ice", "doctor", "-o", "json")
    checks = {each["check"]: each["state"] for each in doctor.data["items"]}
    assert checks["keys"] == "ok"
    assert checks["expiry"] == "warning", "two renewals are to be finished"


async def passed(moment: datetime) -> bool:
    return datetime.now(UTC) > moment + timedelta(milliseconds=50)


async def is_out(pair: Pair, *, sequence: int) -> bool:
    entries = await on_stream(pair, STREAM)
    return sequence in {attributes_of(entry).sequence for entry in entries}
