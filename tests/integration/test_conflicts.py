"""Forks and rollbacks of the peer's log stay an alarm, everywhere, until a person resolves them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.canonical import b64, canonical, parse, unb64
from schemas.checkpoint import parse_checkpoint, sign_checkpoint
from schemas.envelope import Kind, read, verify
from schemas.errors import EvidenceError
from schemas.jose import read_jws
from schemas.proof import append, leaf_hash, root_of
from schemas.reply import Head, Resend, StreamHead
from services import cli
from services.bus import Entry
from services.exchange import conflicts, parties
from services.exchange.gauges import Gauges
from services.exchange.intake import Arrived
from services.exchange.process import delivery_of
from services.keys import KeyRing
from services.ledger.records import make_record
from services.proof.checking import check
from services.proof.members import MANIFEST, TYP
from services.telemetry import metrics
from tests.agencies import Pair, a_notice, accept, trust, two_agencies, until, value
from tests.bundles import Members, members_of, ours, run_verify, signed_again, written
from tests.steps import LIVE, attributes_of, receipts, received, relay, rows, said

OPEN = "SELECT count(*) FROM conflict WHERE resolved_at IS NULL"


@pytest.fixture
async def pair(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Pair]:
    async with two_agencies(home, database, redis_url) as pair:
        yield pair


@pytest.fixture
async def records(pair: Pair) -> list[dict[str, Any]]:
    """What HHS would write of two notices that ICE published."""
    await accept(pair.ice, a_notice(), a_notice())
    await relay(pair.ice, LIVE)
    sent = await rows(pair.ice, "SELECT message_id, envelope_hash FROM sent ORDER BY sequence")
    return [received(message_id, bytes(envelope_hash)) for message_id, envelope_hash in sent]


async def take(pair: Pair, *entries: Entry) -> None:
    await delivery_of(pair.ice, pair.ice_noted).take(entries)


async def answers(pair: Pair) -> list[str | None]:
    return [row[0] for row in await rows(pair.ice, "SELECT answer FROM sent ORDER BY sequence")]


def redriven(pair: Pair, entry: Entry) -> Arrived:
    envelope = verify(read(entry.jws), pair.ice.directory.verify_keys)
    return Arrived(entry=entry, envelope=envelope, redriven=True)


def note_of(pair: Pair, entry: Entry) -> str:
    envelope = verify(read(entry.jws), pair.ice.directory.verify_keys)
    found: str = json.loads(envelope.plain())["checkpoint"]
    return found


async def test_a_fork_is_told_everywhere_until_it_is_resolved(
    pair: Pair,
    records: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = records
    known, forked, later = (
        receipts(pair.hhs, [first], sequence=1),
        receipts(pair.hhs, [second], sequence=2),
        receipts(pair.hhs, [first, second], sequence=3),
    )

    await take(pair, known, forked, later)

    # What was believed before stays; nothing from there on is, and other traffic goes on.
    assert await answers(pair) == ["receipt", None]
    assert [row[0] for row in await rows(pair.ice, "SELECT cause FROM dead_letter")] == [
        "NB-3021",
        "NB-3158",
    ]
    ask = Resend(stream=LIVE, generation=1, first=1, last=1)
    await take(pair, said(pair.hhs, Kind.RESEND, ask, sequence=4))
    assert await value(pair.ice, "SELECT count(*) FROM inbox WHERE kind = 'resend'") == 1
    [found] = await conflicts.listed(pair.ice.store)
    assert (found.code, found.size, found.times) == ("NB-3021", 1, 1)
    assert (found.known_note, found.told_note) == (note_of(pair, known), note_of(pair, forked))
    assert parse_checkpoint(found.told_note).checkpoint.origin == pair.hhs.ring.log_key.name

    settings = pair.ice.settings
    monkeypatch.setenv("NOTICEBUS_DATABASE_URL", settings.database_url_required)
    monkeypatch.setenv("NOTICEBUS_REDIS_URL", settings.redis_url_required)

    async def run(*line: str) -> tuple[int, str]:
        words = ["--agency", "ice", "--home", str(settings.home), *line]
        code = await asyncio.to_thread(cli.execute, words)
        return code, capsys.readouterr().out

    async def say(*line: str) -> dict[str, Any]:
        code, out = await run(*line, "-o", "json")
        assert code in (0, 1), line
        said: dict[str, Any] = json.loads(out)
        return said

    for line in (("report", "usage"), ("overdue",), ("db", "restore", "--report")):
        assert [each["code"] for each in (await say(*line))["conflicts"]] == ["NB-3021"], line
    checks = {each["check"]: each["state"] for each in (await say("doctor"))["items"]}
    assert checks["conflicts"] == "problem"
    await Gauges(pair.ice, ()).of_store()
    assert metrics.CONFLICTS._value.get() == 1
    assert (await run("ledger", "conflicts", "--resolve", "all"))[0] == 2
    assert (await run("ledger", "conflicts", "--resolve", "zz", "--reason", "x"))[0] == 3
    resolve = ("ledger", "conflicts", "--resolve", str(found.conflict_id)[:9], "--reason", "asked")
    assert [each["code"] for each in (await say(*resolve))["items"]] == ["NB-3021"]

    assert (await say("ledger", "conflicts"))["items"] == []
    [kept] = (await say("ledger", "conflicts", "--all"))["items"]
    assert (kept["known_note"], kept["told_note"]) == (found.known_note, found.told_note)
    assert "conflicts" not in await say("overdue")
    acts = "SELECT count(*) FROM record WHERE action IN ('conflict.found', 'conflict.resolved')"
    assert await value(pair.ice, acts) == 2
    # What was not believed is, once it is redriven; what contradicts by itself never is.
    control = delivery_of(pair.ice, pair.ice_noted).control
    await control.take([redriven(pair, later)])
    assert await answers(pair) == ["receipt", "receipt"]
    with pytest.raises(EvidenceError, match="NB-3021"):
        await control.take([redriven(pair, forked)])
    assert await value(pair.ice, OPEN) == 1


async def test_a_bundle_says_that_the_log_it_rests_on_is_in_doubt(
    pair: Pair, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    """In report, manifest and both programs, with both notes, until it is resolved."""
    first, second = records
    known, forked = (
        receipts(pair.hhs, [first], sequence=1),
        receipts(pair.hhs, [second], sequence=2),
    )
    await take(pair, known, forked)
    notice = await value(pair.ice, "SELECT notice_id FROM sent WHERE answer = 'receipt'")
    assert isinstance(notice, UUID)
    async with pair.running(ice=("sealer",), hhs=()):
        await until(partial(is_sealed, pair), "what ICE has")

    members = await members_of(pair.ice, tmp_path, notice)

    origin = pair.hhs.ring.log_key.name
    [said] = manifest(members)["conflicts"]
    assert (said["code"], said["origin"], said["size"]) == ("NB-3021", origin, 1)
    notes = {members[said[each]].decode() for each in ("known", "told")}
    assert notes == {note_of(pair, known), note_of(pair, forked)}
    report = " ".join(members["report.txt"].decode().split())
    assert "The log of HHS is in doubt" in report
    assert f"NB-3021, found {said['found_at']}: {origin} signed two roots for size 1." in report
    assert "Receipts in here that rest on 1 or more of its records: 1." in report
    doubt = f"IN DOUBT: {origin} contradicts itself at 1 (NB-3021)"
    assert check(members).conflicts == (doubt,)
    verdict = run_verify(written(tmp_path, members))
    assert verdict.code == 0
    assert doubt in verdict.out
    # Whoever makes a bundle cannot put a conflict upon the other agency that it did not sign.
    made_up = sign_checkpoint(1, bytes(32), pair.ice.ring.log_key).encode()
    cheated = signed_again(pair.ice, {**members, said["told"]: made_up})
    assert said["told"] in (ours(cheated) or "")
    assert said["told"] in run_verify(written(tmp_path, cheated)).last

    await conflicts.resolve(pair.ice.store, "all", actor="officer", reason="they restored it")
    resolved = await members_of(pair.ice, tmp_path, notice)
    assert "conflicts" not in manifest(resolved)
    assert not [name for name in resolved if name.startswith("conflicts/")]
    assert b"in doubt" not in resolved["report.txt"]


def manifest(members: Members) -> dict[str, Any]:
    found: dict[str, Any] = parse(read_jws(members[MANIFEST], TYP).payload)
    return found


async def is_sealed(pair: Pair) -> bool:
    return not await value(pair.ice, "SELECT count(*) FROM unsealed")


async def test_fewer_records_under_a_later_sequence_are_a_rollback_and_old_bytes_are_not(
    pair: Pair, records: list[dict[str, Any]]
) -> None:
    first, second = records
    both, one = [first, second], [first]

    await take(pair, receipts(pair.hhs, both, sequence=2), receipts(pair.hhs, one, sequence=1))
    assert await value(pair.ice, OPEN) == 0
    await take(pair, receipts(pair.hhs, one, sequence=3))

    found = await rows(pair.ice, "SELECT code, size FROM conflict ORDER BY found_at")
    assert found == [("NB-3157", 1)]
    # Heads are compared with heads.
    for size, sequence, number in ((9, 10, 1), (7, 9, 1), (8, 11, 2)):
        note = sign_checkpoint(size, bytes(32), pair.hhs.ring.log_key)
        head = Head(checkpoint=note, consistency=(), highest={}, since=5)
        await take(pair, said(pair.hhs, Kind.HEAD, head, sequence=sequence))
        times = await value(pair.ice, "SELECT times FROM conflict WHERE code = 'NB-3157'")
        assert times == number, (size, sequence)


async def test_what_a_restored_log_lost_is_void_whatever_comes_first(
    pair: Pair, records: list[dict[str, Any]]
) -> None:
    """The first receipts of the new log arrive before its first record does."""
    first, second = records
    await take(pair, receipts(pair.hhs, [first, second], sequence=1))
    assert await answers(pair) == ["receipt", "receipt"]
    old = pair.hhs.ring.log_key
    KeyRing.begin_generation(pair.hhs.settings.keys_folder, 2)
    await pair.hhs.reload()
    own = pair.hhs.ring.party(partitions=pair.hhs.settings.partitions)
    async with pair.hhs.store.transaction() as tx:
        await parties.register_own(tx, own)
    await trust(pair.ice, pair.hhs)
    root = leaf_hash(canonical(first))
    ends = [an_end(old.name, root), an_end("hhs.example/noticebus/hhs/1", root), an_end("", root)]

    both = root_of(append([], 0, [leaf_hash(canonical(each)) for each in records]), 2)
    before = Head(
        checkpoint=sign_checkpoint(2, both, old),
        consistency=(),
        highest={LIVE: StreamHead(generation=1, sequence=2)},
        since=0,
    )
    await take(pair, said(pair.hhs, Kind.HEAD, before, sequence=8))
    assert await value(pair.ice, "SELECT highest FROM peer_read") == 2

    again = new_log(pair, [{"leaf": b64(leaf_hash(canonical(ends[0])))}, {"record": second}], 2)
    end = new_log(pair, [{"record": ends[0]}], 1)
    await take(pair, again, end)
    # How far it had read is not known any more, and the old log's heads do not tell.
    await take(pair, said(pair.hhs, Kind.HEAD, before, sequence=9))
    assert await value(pair.ice, "SELECT count(*) FROM peer_read") == 0

    assert await answers(pair) == ["receipt", "receipt"]
    voided = await rows(pair.ice, "SELECT answer_index, origin FROM voided_receipt")
    assert voided == [(1, old.name)]
    carried = await rows(pair.ice, "SELECT answer_message FROM sent ORDER BY sequence")
    assert [row[0] == attributes_of(again).id for row in carried] == [False, True]
    [found] = await conflicts.listed(pair.ice.store)
    assert (found.code, found.origin, found.size) == ("NB-3161", old.name, 1)
    # What the old log says from there on proves nothing, whether a person resolved it or not.
    await take(pair, receipts(pair.hhs, [first, second], signer=old, sequence=2))
    await conflicts.resolve(pair.ice.store, "all", actor="x", reason="told by telephone")
    await take(pair, receipts(pair.hhs, [first, second], signer=old, sequence=3))
    assert await causes(pair) == ["NB-3162", "NB-3162"]
    KeyRing.begin_generation(pair.hhs.settings.keys_folder, 3)
    await pair.hhs.reload()
    own = pair.hhs.ring.party(partitions=pair.hhs.settings.partitions)
    async with pair.hhs.store.transaction() as tx:
        await parties.register_own(tx, own)
    await trust(pair.ice, pair.hhs)
    for sequence, other in enumerate(ends[1:], 4):
        await take(pair, new_log(pair, [{"record": other}], sequence))
    assert await causes(pair) == ["NB-3162", "NB-3162", "NB-3163", "NB-3163"]


async def causes(pair: Pair) -> list[str]:
    return [
        row[0] for row in await rows(pair.ice, "SELECT cause FROM dead_letter ORDER BY dead_id")
    ]


def an_end(origin: str, root: bytes) -> dict[str, Any]:
    """Return the first record of a log that follows another one, which ended at size 1."""
    detail: dict[str, int | str] = {"origin": origin, "size": 1, "root": b64(root)}
    detail = detail if origin else {}
    record = make_record("ledger.adopted", time=datetime.now(UTC), generation=2, detail=detail)
    said: dict[str, Any] = json.loads(record.record)
    return said


def new_log(pair: Pair, entries: list[dict[str, Any]], sequence: int) -> Entry:
    """Return receipts of the first records of HHS' log of today."""
    leaves = [
        leaf_hash(canonical(each["record"])) if "record" in each else unb64(each["leaf"])
        for each in entries
    ]
    root = root_of(append([], 0, leaves), len(leaves))
    body = {
        "schema_version": "receipts/1.0",
        "index": 0,
        "frontier": [],
        "entries": entries,
        "checkpoint": sign_checkpoint(len(leaves), root, pair.hhs.ring.log_key),
    }
    return said(
        pair.hhs,
        Kind.RECEIPTS,
        canonical(body),
        sequence=sequence,
        generation=pair.hhs.ring.generation,
    )
