"""A store that does not continue its anchor publishes nothing; whoever reads it is told."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from schemas.checkpoint import sign_checkpoint
from schemas.errors import EvidenceError
from services.exchange.agency import Agency
from services.proof.building import Selection, build
from tests.agencies import a_notice, accept, two_agencies, until, value
from tests.command_line import CommandLine
from tests.restores import at_rest

# What leaves this agency, or rests on what somebody sees here.
REFUSED = (
    "ledger checkpoint",
    "ledger checkpoint --inspector",
    "ledger export {folder}/log",
    "ledger export {folder}/hashes --hashes-only",
    "ledger conflicts --resolve all --reason x",
    "proof build --office CHI --out {folder}/proof.zip",
    "token create inspector",
    "replay plan",
    "queue take",
    "queue release 0190",
    "bus status",
)
# What only reads goes on.
TOLD = ("queue list", "overdue", "ledger conflicts", "token list", "db restore --report")


@pytest.fixture
async def hhs(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Agency]:
    async with two_agencies(home, database, redis_url) as pair:
        async with pair.running():
            await accept(pair.ice, a_notice())
            await until(partial(at_rest, pair), "the receipt")
        yield pair.hhs


def command_line(agency: Agency) -> CommandLine:
    """Return the command on an agency's own store and bus."""
    settings = agency.settings
    return CommandLine(
        settings.home,
        {
            "NOTICEBUS_AGENCY": agency.name,
            "NOTICEBUS_DATABASE_URL": settings.database_url_required,
            "NOTICEBUS_REDIS_URL": settings.redis_url_required,
        },
    )


async def wound_back(agency: Agency) -> str:
    """Anchor a checkpoint that the store does not know any more; return the note that it knows."""
    note = agency.anchor.read()
    size = await value(agency, "SELECT size FROM log_head")
    assert note is not None
    assert isinstance(size, int)
    agency.anchor.write(sign_checkpoint(size + 7, bytes(32), agency.ring.log_key))
    return note


async def test_what_publishes_is_refused_and_what_reads_is_told(
    hhs: Agency, tmp_path: Path
) -> None:
    noticebus = command_line(hhs)
    for line in TOLD:
        assert "NB-" not in noticebus(line).err
    note = await wound_back(hhs)
    records = "SELECT count(*) FROM record"
    before = await value(hhs, records)

    for line in REFUSED:
        done = noticebus(line.format(folder=tmp_path))
        assert (done.code, done.out, done.err[:8]) == (6, "", "NB-3150:"), line
    assert await value(hhs, records) == before
    assert there(tmp_path) == {"home"}
    for line in TOLD:
        done = noticebus(f"-q {line}")
        assert (done.code, done.err.count("! NB-3150: this store went back")) == (0, 1), line
        assert noticebus(f"{line} -o json").data["doubt"]["code"] == "NB-3150", line
    assert "NB-3150" in noticebus("doctor").out
    assert noticebus("ledger verify").code == 6
    assert noticebus("ledger anchor").code == 6

    hhs.anchor.write(note)
    assert "doubt" not in noticebus.json("queue list")
    for line in REFUSED[:4]:
        assert noticebus(line.format(folder=tmp_path)).code == 0, line


def there(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_store_whose_anchor_is_gone_is_in_doubt_as_well(hhs: Agency) -> None:
    noticebus = command_line(hhs)
    hhs.anchor.remove()

    assert noticebus("ledger checkpoint").err.startswith("NB-3152:")
    assert "! NB-3152: the anchor " in noticebus("queue list").err


async def test_a_bundle_is_not_built_by_an_agency_whose_store_went_back_under_it(
    hhs: Agency, tmp_path: Path
) -> None:
    await wound_back(hhs)

    with pytest.raises(EvidenceError, match="NB-3150"):
        await build(hhs, Selection(office="CHI"), tmp_path / "proof.zip", actor="x")
