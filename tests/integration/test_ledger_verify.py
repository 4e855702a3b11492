"""Verification finds the first difference, whatever was changed, and names it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.checkpoint import Signer, sign_checkpoint
from schemas.errors import EvidenceError
from services.ledger.anchor import Anchor
from services.ledger.records import make_record
from services.ledger.store import Store
from services.ledger.verify import Report, verify
from tests.command_line import CommandLine
from tests.ledgers import (
    LOG_KEY,
    ORIGIN,
    a_sealer,
    anchor_of,
    keep,
    opened,
    seal_all,
    some_records,
    tamper,
)

Database = Callable[[str], str]


async def fill(store: Store) -> None:
    """Seal 600 records in batches that end at 100, 300, 301 and 600."""
    sealer = a_sealer(store)
    for count in (100, 200, 1, 299):
        await keep(store, some_records(count, actor="R. Alvarez"))
        await seal_all(sealer)


async def check(store: Store, *, also: tuple[str, ...] = ()) -> Report:
    return await verify(store, log_keys=[LOG_KEY.verifier], also=also)


async def test_whole_ledger_verifies_and_is_counted(database: Database) -> None:
    seen: list[tuple[int, int]] = []
    async with opened(database("ice")) as store:
        await fill(store)
        await keep(store, some_records(5))

        report = await verify(
            store,
            log_keys=[LOG_KEY.verifier],
            progress=lambda done, total: seen.append((done, total)),
        )

    assert report.difference is None
    assert (report.size, report.verified, report.unsealed) == (600, 600, 5)
    assert (report.checkpoints, report.tiles, report.openings, report.erased) == (4, 2, 600, 0)
    assert seen[-1] == (600, 600)


async def test_empty_ledger_verifies(database: Database) -> None:
    async with opened(database("ice")) as store:
        report = await check(store)

    assert (report.size, report.difference) == (0, None)


async def test_erased_opening_leaves_the_record_whole(database: Database) -> None:
    url = database("ice")
    async with opened(url) as store:
        await fill(store)
        tamper(url, "DELETE FROM opening WHERE record_id <= 10")

        report = await check(store)

    assert report.difference is None
    assert (report.openings, report.erased) == (590, 10)


# What somebody who owns the database may do to it, and what has to be said of it. Record ids begin
# at 1, so the record at index 7 has id 8; the first tile covers indexes 0 to 255.
REWRITE = (
    "UPDATE record SET record = convert_to(replace(convert_from(record, 'UTF8'), 'taken', 'gone'),"
    " 'UTF8') WHERE record_id = "
)
CHANGES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "a byte of a record in a full tile": (
        "NB-3031",
        {"index": 7},
        [REWRITE + "8"],
    ),
    "a byte of a record that makes it no JSON": (
        "NB-3031",
        {"index": 7},
        ["UPDATE record SET record = set_byte(record, 0, 0) WHERE record_id = 8"],
    ),
    "a byte of a record after the last full tile": (
        "NB-3032",
        {"index": 301, "last": 599},
        [REWRITE + "556"],
    ),
    "a byte of a record after the last full tile, no JSON": (
        "NB-3002",
        {"index": 555},
        ["UPDATE record SET record = set_byte(record, 0, 0) WHERE record_id = 556"],
    ),
    "a record sealed alone": (
        "NB-3031",
        {"index": 300},
        [REWRITE + "301"],
    ),
    "two records, of which the later is no JSON": (
        "NB-3031",
        {"index": 120},
        [
            "UPDATE record SET record = set_byte(record, 0, 0) WHERE record_id = 131",
            REWRITE + "121",
        ],
    ),
    "two records swapped": (
        "NB-3031",
        {"index": 20},
        [
            "UPDATE log_entry SET record_id = -1 WHERE record_index = 20",
            "UPDATE log_entry SET record_id = 21 WHERE record_index = 40",
            "UPDATE log_entry SET record_id = 41 WHERE record_index = 20",
        ],
    ),
    "an entry of the log deleted": (
        "NB-3030",
        {"index": 42},
        ["DELETE FROM log_entry WHERE record_index = 42"],
    ),
    "the last entry of the log deleted": (
        "NB-3030",
        {"index": 599},
        ["DELETE FROM log_entry WHERE record_index = 599"],
    ),
    "a record deleted": ("NB-3030", {"index": 42}, ["DELETE FROM record WHERE record_id = 43"]),
    "a record deleted after one that was changed": (
        "NB-3031",
        {"index": 41},
        [
            "DELETE FROM record WHERE record_id = 43",
            REWRITE + "42",
        ],
    ),
    "an entry added": (
        "NB-3038",
        {},
        ["INSERT INTO log_entry (record_index, record_id) VALUES (600, 9999)"],
    ),
    "a tile": (
        "NB-3035",
        {"level": 0, "n": 0, "index": 2},
        ["UPDATE tile SET hashes = set_byte(hashes, 70, 255 - get_byte(hashes, 70)) WHERE n = 0"],
    ),
    "a tile deleted": ("NB-3035", {"level": 0, "n": 1}, ["DELETE FROM tile WHERE n = 1"]),
    "a tile added": (
        "NB-3038",
        {},
        ["INSERT INTO tile SELECT level, 9, hashes FROM tile WHERE n = 0"],
    ),
    "the size in a note": (
        "NB-3036",
        {"size": 300},
        ["UPDATE checkpoint SET note = replace(note, '300', '299') WHERE size = 300"],
    ),
    "the signature of a note": (
        "NB-3036",
        {"size": 300},
        ["UPDATE checkpoint SET note = left(note, -10) || 'AAAAAAA==' || chr(10) WHERE size = 300"],
    ),
    "a note that is none": (
        "NB-3036",
        {"size": 100},
        ["UPDATE checkpoint SET note = 'all is well' WHERE size = 100"],
    ),
    "a note in the place of another": (
        "NB-3037",
        {"size": 300, "column": "size"},
        [
            "UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE size = 100)"
            " WHERE size = 300"
        ],
    ),
    "the root beside a note": (
        "NB-3037",
        {"size": 301, "column": "root"},
        ["UPDATE checkpoint SET root = sha256('x') WHERE size = 301"],
    ),
    "the newest checkpoint deleted": (
        "NB-3038",
        {},
        ["DELETE FROM checkpoint WHERE size = 600"],
    ),
    "the root of the head": ("NB-3038", {}, ["UPDATE log_head SET root = sha256('x')"]),
    "the frontier of the head": ("NB-3038", {}, ["UPDATE log_head SET frontier = '{}'"]),
    "the head deleted": ("NB-3038", {}, ["DELETE FROM log_head"]),
    "the action of a record": (
        "NB-3033",
        {"index": 7, "column": "action"},
        ["UPDATE record SET action = 'message.sent' WHERE record_id = 8"],
    ),
    "the notice of a record": (
        "NB-3033",
        {"index": 7, "column": "notice_id"},
        ["UPDATE record SET notice_id = gen_random_uuid() WHERE record_id = 8"],
    ),
    "the message of a record": (
        "NB-3033",
        {"index": 7, "column": "message_id"},
        ["UPDATE record SET message_id = NULL WHERE record_id = 8"],
    ),
    "the time of a record": (
        "NB-3033",
        {"index": 7, "column": "recorded_at"},
        [
            "UPDATE record SET recorded_at = recorded_at + interval '1 microsecond'"
            " WHERE record_id = 8"
        ],
    ),
    "the name beside a record": (
        "NB-3034",
        {"index": 7},
        [
            """UPDATE opening SET opened = jsonb_set(opened, '{actor,value}', '"J. Doe"')"""
            " WHERE record_id = 8"
        ],
    ),
    "an opening that is none": (
        "NB-3034",
        {"index": 7},
        ["UPDATE opening SET opened = '[]' WHERE record_id = 8"],
    ),
    "a record taken out of the sealer's queue": (
        "NB-3039",
        {"record_id": 601},
        ["DELETE FROM unsealed WHERE record_id = 601"],
    ),
    "a sealed record put back into the queue": (
        "NB-3039",
        {"record_id": 8},
        ["INSERT INTO unsealed (record_id) VALUES (8)"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_first_difference_is_found_and_named(database: Database, change: str) -> None:
    code, where, statements = CHANGES[change]
    url = database("ice")
    async with opened(url) as store:
        await fill(store)
        await keep(store, some_records(1))
        tamper(url, *statements)

        report = await check(store)

    assert report.difference is not None
    assert report.difference.code == code
    assert {name: report.difference.where[name] for name in where} == where
    assert report.difference.sentence
    assert report.difference.fix


async def test_history_rewritten_with_another_key_is_found(database: Database) -> None:
    """Records, tree and checkpoints all fit each other; the signature is not ours."""
    async with opened(database("ice")) as store:
        await fill(store)
        other = Signer(ORIGIN, Ed25519PrivateKey.generate())

        report = await verify(store, log_keys=[other.verifier])

    assert report.difference is not None
    assert report.difference.code == "NB-3036"


async def test_ledger_that_was_cut_off_is_found_by_a_checkpoint_kept_elsewhere(
    database: Database,
) -> None:
    async with opened(database("ice")) as store:
        await fill(store)
        report = await check(store)
        note = sign_checkpoint(700, report.root, LOG_KEY)

        later = await check(store, also=(note,))

    assert later.difference is not None
    assert (later.difference.code, later.difference.where["size"]) == ("NB-3036", 700)


async def test_checkpoint_kept_elsewhere_that_says_another_root_is_a_fork(
    database: Database,
) -> None:
    async with opened(database("ice")) as store:
        await fill(store)
        kept = await check(store)
        same = sign_checkpoint(600, kept.root, LOG_KEY)
        fork = sign_checkpoint(300, bytes(32), LOG_KEY)

        assert (await check(store, also=(same,))).difference is None
        report = await check(store, also=(same, fork))

    assert report.difference is not None
    assert (report.difference.code, report.difference.where["size"]) == ("NB-3036", 300)


async def test_record_that_was_sealed_in_another_form_is_found(database: Database) -> None:
    """Changed before it was sealed: the tree is right, the record is not."""
    url = database("ice")
    async with opened(url) as store:
        await keep(store, [make_record("case.taken", time=datetime.now(UTC))])
        tamper(url, "UPDATE record SET record = record || '\\x20'::bytea")
        await seal_all(a_sealer(store))

        report = await check(store)

    assert isinstance(report.difference, EvidenceError)
    assert (report.difference.code, report.difference.where["index"]) == ("NB-3002", 0)


async def test_the_tree_alone_finds_changed_records_and_hashes_and_says_what_it_left_out(
    database: Database, home: Path
) -> None:
    url = database("ice")
    command = CommandLine(home, {"NOTICEBUS_DATABASE_URL": url, "NOTICEBUS_ANCHOR": str(home)})
    line = f"--agency ice ledger verify --tree-only --vkey {LOG_KEY.verifier.vkey()}"
    async with opened(url) as store:
        await fill(store)
        # What stands beside the records is looked at by the whole check alone.
        tamper(url, *CHANGES["the action of a record"][2])
        tamper(url, *CHANGES["the name beside a record"][2])
        whole = await check(store)
        tree = await verify(store, log_keys=[LOG_KEY.verifier], tree_only=True)
        assert whole.difference is not None
        assert tree.difference is None
        assert (tree.size, tree.verified, tree.checkpoints, tree.tiles) == (600, 600, 4, 2)
        assert tree.openings == tree.erased == 0
        Anchor(home / "ice.checkpoint", ()).write(anchor_of(store).read() or "")
        left_out = ["columns", "openings", "times", "messages", "contents", "answers"]
        said = command.json(line)
        assert (said["valid"], said["not_checked"]) == (True, left_out)
        assert f"not checked: {', '.join(left_out)}" in command(line).out

        # The later in the log comes first, because the first difference is the one that is told.
        _, _, [hash_changed] = CHANGES["a tile"]
        changes: list[tuple[str, dict[str, Any], list[str]]] = [
            ("NB-3035", {"n": 1, "index": 258}, [hash_changed.replace("n = 0", "n = 1")]),
            CHANGES["a byte of a record after the last full tile"],
            CHANGES["a byte of a record in a full tile"],
        ]
        for code, where, statements in changes:
            tamper(url, *statements)
            found = await verify(store, log_keys=[LOG_KEY.verifier], tree_only=True)
            assert found.difference is not None
            assert found.difference.code == code
            assert {name: found.difference.where[name] for name in where} == where
        done = command(line, "-o", "json")

    assert done.code == 6
    assert (done.data["valid"], done.data["difference"]["index"]) == (False, 7)
    assert done.data["not_checked"] == left_out
