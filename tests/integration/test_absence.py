"""Proof of absence: a shared index key, a tag on every record of a notice, and all records read."""

import json
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from schemas.canonical import b64, canonical, parse, unb64
from schemas.casetag import casetag, index_key_hash, index_key_text
from schemas.checkpoint import parse_checkpoint
from schemas.cosignature import cosigner
from schemas.envelope import read
from schemas.errors import ConflictError, EvidenceError, RejectedError
from services.exchange import dead, heads
from services.exchange.agency import Agency
from services.exchange.contents import verify_contents
from services.exchange.indexing import seal_index_key, take_index_key
from services.exchange.outbox import Draft
from services.exchange.process import delivery_of
from services.keys import INDEX_FILE, KeyRing
from services.ledger.export import export
from services.ledger.tiles import tile_path
from services.proof.absence import Searched, search
from tests.agencies import Pair, a_notice, accept, answered, two_agencies, until, value
from tests.command_line import CommandLine
from tests.steps import rows, settled

ONE, OTHER, NOBODY = "A098765411", "A098765412", "A098765413"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


def about(a_number: str) -> Draft:
    """Return a notice about an invented child."""
    draft = a_notice()
    return replace(draft, body=canonical(parse(draft.body) | {"a_number": a_number}))


async def share(pair: Pair) -> bytes:
    """Let ICE make an index key and HHS take it; returns the file that was handed over."""
    sealed = await seal_index_key(pair.ice, actor="a keeper")
    await take_index_key(pair.hhs, sealed, actor="a keeper")
    return sealed


async def sent(pair: Pair, *drafts: Draft) -> None:
    await accept(pair.ice, *drafts)
    await until(partial(answered, pair.ice, drafts), "every receipt")


async def exported(agency: Agency, folder: Path, *, entries: bool = True) -> Path:
    """Export a log up to its newest cosigned checkpoint."""
    async with agency.store.transaction() as tx:
        seen = await heads.seen(tx)
    assert seen is not None
    assert seen.cosigned is not None
    under = seen.cosigned.size, seen.cosigned.note
    await export(agency.store, folder, entries=entries, actor="an operator", under=under)
    return folder


def looked(
    pair: Pair, agency: Agency, folder: Path, a_number: str, since: datetime, until: datetime
) -> Searched:
    peer = pair.hhs if agency is pair.ice else pair.ice
    assert pair.ice.ring.index_key is not None
    return search(
        folder,
        log_keys=[agency.ring.log_key.verifier],
        witnesses=[cosigner(peer.ring.cosigner)],
        index_key=pair.ice.ring.index_key,
        a_number=a_number,
        since=since,
        until=until,
    )


async def records(agency: Agency, action: str) -> list[dict[str, Any]]:
    found = await rows(agency, "SELECT record FROM record WHERE action = %s", action)
    return [json.loads(row[0]) for row in found]


async def test_the_key_is_handed_over_sealed_and_its_hash_is_in_both_ledgers(
    pair: Pair, tmp_path: Path
) -> None:
    sealed = await share(pair)

    key = pair.ice.ring.index_key
    assert key is not None
    assert pair.hhs.ring.index_key == key
    assert index_key_text(key).strip() not in sealed
    for agency, action in ((pair.ice, "index.sealed"), (pair.hhs, "index.taken")):
        [record] = await records(agency, action)
        assert record["detail"] == {"index": b64(index_key_hash(key))}
        file = agency.settings.keys_folder / INDEX_FILE
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert repr(key)[2:-1] not in repr(agency.ring)
    # Once more is no harm; another one, or a file for or of somebody else, is refused.
    await take_index_key(pair.hhs, await seal_index_key(pair.ice, actor="a keeper"), actor="other")
    with pytest.raises(RejectedError, match="NB-3223"):
        await take_index_key(pair.ice, sealed, actor="a keeper")
    with pytest.raises(RejectedError, match="NB-3223"):
        await take_index_key(pair.hhs, sealed[:-9] + b"AAAAAAAAA", actor="a keeper")
    with pytest.raises(ConflictError, match="NB-3222"):
        KeyRing.add_index_key(pair.hhs.settings.keys_folder, bytes(32))
    # Nothing is sealed yet, and so nothing cosigned.
    environment = {"NOTICEBUS_DATABASE_URL": pair.ice.settings.database_url or ""}
    command = CommandLine(pair.ice.settings.home, environment)
    done = command(f"--agency ice ledger export --cosigned {tmp_path / 'log'}")
    assert (done.code, "NB-3227" in done.err) == (3, True)
    shown = {
        each["use"]: each["key_id"] for each in command.json("--agency ice keys show")["items"]
    }
    assert shown["index"] == b64(index_key_hash(key))


async def test_all_records_are_looked_at_and_one_without_a_tag_leaves_it_open(
    pair: Pair, tmp_path: Path
) -> None:
    async with pair.running():
        began = datetime.now(UTC)
        await sent(pair, about(NOBODY))
        await share(pair)
        shared = datetime.now(UTC)
        one, other = about(ONE), about(OTHER)
        await sent(pair, one, other)
        middle = datetime.now(UTC)
        await sent(pair, about(OTHER))
        ended = datetime.now(UTC)
        # A cosignature is of whole seconds, so the next one is not before the end.
        await until(partial(cosigned_after, pair, ended), "cosignatures")

    key = pair.ice.ring.index_key
    assert key is not None
    query = "SELECT envelope FROM envelope JOIN sent USING (message_id) WHERE kind = 'fta'"
    claims = [read(bytes(row[0])).claims for row in await rows(pair.ice, query)]
    tags = {each.casetag for each in claims if each is not None}
    assert tags >= {None, casetag(key, ONE), casetag(key, OTHER)}
    tagged = sum(each.casetag is not None for each in claims if each is not None)
    for agency, action in ((pair.ice, "message.sent"), (pair.hhs, "message.received")):
        assert (await verify_contents(agency.store)).difference is None
        folder = await exported(agency, tmp_path / agency.name)
        look = partial(looked, pair, agency, folder)

        found = look(ONE, shared, ended)
        assert not found.absent
        assert [(each.notice_id, each.action) for each in found.found] == [
            (str(one.notice_id), action)
        ]
        assert len(look(OTHER, shared, ended).found) == 2
        # Of a part of the time there is none, and that others are is told.
        absent = look(ONE, middle, ended)
        assert (absent.absent, absent.elsewhere, absent.tagged) == (True, 1, tagged)
        assert absent.records == absent.size
        assert look(NOBODY, shared, ended).absent
        # Before the key nobody can say whose notice it was.
        opened = look(NOBODY, began, ended)
        assert (opened.absent, opened.found, len(opened.untagged)) == (False, (), 1)

        [cosigned] = absent.cosignatures
        with pytest.raises(RejectedError, match="NB-3225"):
            look(NOBODY, shared, cosigned.at + timedelta(seconds=1))
        hashes = await exported(agency, tmp_path / f"{agency.name}-hashes", entries=False)
        with pytest.raises(RejectedError, match="NB-3226"):
            looked(pair, agency, hashes, NOBODY, shared, ended)
        under = 1, (folder / "checkpoint").read_text(encoding="utf-8")
        with pytest.raises(RejectedError, match="NB-3092"):
            await export(agency.store, folder, entries=True, actor="an operator", under=under)
        await refused_when_changed(pair, agency, folder, shared, ended, found.found[0].index)
    await commands(pair, tmp_path, shared, ended)


async def cosigned_after(pair: Pair, moment: datetime) -> bool:
    if not await settled(pair):
        return False
    query = "SELECT max(cosigned_at) FROM cosignature"
    times = [await value(agency, query) for agency in (pair.ice, pair.hhs)]
    late = all(isinstance(each, datetime) and each > moment for each in times)
    if not late:
        await accept(pair.ice, a_notice())
    return late


async def refused_when_changed(
    pair: Pair, agency: Agency, folder: Path, since: datetime, until: datetime, index: int
) -> None:
    """Neither a record without its tag nor a checkpoint that nobody saw shows an absence."""
    note = (folder / "checkpoint").read_text(encoding="utf-8")
    width = parse_checkpoint(note).checkpoint.size
    entries = folder / tile_path("entries", 0, width)
    content = entries.read_bytes()
    tag = b64(casetag(pair.ice.ring.index_key or b"", ONE)).encode()
    assert tag in content
    entries.write_bytes(content.replace(tag, b64(bytes(32)).encode()))
    with pytest.raises(EvidenceError, match=f"record {index} was changed"):
        looked(pair, agency, folder, ONE, since, until)
    entries.write_bytes(content)
    own = agency.ring.log_key.signature_line(note.partition("\n\n")[0] + "\n")
    (folder / "checkpoint").write_text(note.partition("\n\n")[0] + "\n\n" + own, encoding="utf-8")
    with pytest.raises(EvidenceError, match="NB-3224"):
        looked(pair, agency, folder, NOBODY, since, until)


async def commands(pair: Pair, tmp_path: Path, since: datetime, until: datetime) -> None:
    """The same for people: `keys index`, `ledger export --cosigned` and `proof absence`."""
    ice, hhs = pair.ice.settings, pair.hhs.settings
    command = CommandLine(ice.home, {"NOTICEBUS_REDIS_URL": pair.redis_url})
    at_ice, at_hhs = (
        replace(
            command,
            environment={**command.environment, "NOTICEBUS_DATABASE_URL": each.database_url or ""},
        )
        for each in (ice, hhs)
    )
    file, log = tmp_path / "index.sealed", tmp_path / "exported"
    made = at_ice.json(f"--agency ice keys index --seal {file}")
    assert at_hhs.json(f"--agency hhs keys index --take {file}")["index"] == made["index"]
    assert at_hhs("--agency hhs keys index").out.strip() == f"index key {made['index']}"
    assert len(unb64(made["index"])) == 32
    assert at_ice(f"--agency ice keys index --seal {file} --take {file}").code == 2
    at_ice.json(f"--agency ice ledger export --cosigned {log}")
    line = (
        f"proof absence {log} --index-key {ice.keys_folder / INDEX_FILE}"
        f" --vkey {pair.ice.ring.log_key.verifier.vkey()}"
        f" --witness {cosigner(pair.hhs.ring.cosigner).vkey()}"
        f" --since {since.isoformat()} --until {until.isoformat()}"
    )
    absent = command(line, stdin=f"{NOBODY}\n")
    assert absent.code == 0, absent.err
    assert "no record of a notice for this case" in absent.out
    assert NOBODY not in absent.out + absent.err
    present = command(line, "-o", "json", stdin=f"{ONE}\n")
    assert (present.code, present.data["absent"], len(present.data["found"])) == (1, False, 1)
    assert command(line.replace("--since", "--until", 1), stdin=f"{ONE}\n").code == 2


async def test_a_tag_of_another_case_is_refused_and_one_of_no_known_key_is_passed_over(
    pair: Pair,
) -> None:
    """HHS without a key cannot tell; with another one it refuses what ICE tagged."""
    await seal_index_key(pair.ice, actor="a keeper")
    async with pair.running():
        await sent(pair, about(ONE))
        [received] = await records(pair.hhs, "message.received")
        assert "casetag" not in received

        KeyRing.add_index_key(pair.hhs.settings.keys_folder, uuid4().bytes * 2)
        await pair.hhs.reload()
        draft = about(ONE)
        await accept(pair.ice, draft)
        await until(partial(refused, pair.ice, draft), "the refusal")
        [letter] = await dead.listed(pair.hhs)
        assert letter.cause == "NB-3220"

        # With the right key the same bytes are taken.
        (pair.hhs.settings.keys_folder / INDEX_FILE).unlink()
        await share(pair)
        delivery = delivery_of(pair.hhs, pair.hhs_noted)
        await dead.redrive(delivery, letter, actor="clerk", reason="the key is mended")
        await until(partial(answered, pair.ice, [draft]), "the receipt")
    taken = {each["message_id"]: each for each in await records(pair.hhs, "message.received")}
    key = pair.ice.ring.index_key
    assert key is not None
    assert taken[str(draft.message_id)]["casetag"] == b64(casetag(key, ONE))


async def refused(agency: Agency, draft: Draft) -> bool:
    query = "SELECT answer_code FROM sent WHERE message_id = %s"
    return await value(agency, query, draft.message_id) == "NB-3220"
