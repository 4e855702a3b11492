"""Whatever is changed beside the ledger, verification names the message and what is wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from services.exchange.beside import Beside
from services.exchange.contents import Contents, reading, verify_contents
from services.exchange.contents.walk import Walk
from services.exchange.store import contents as shares
from services.ledger.store import Store, Transaction, audit
from tests.lives import Life
from tests.steps import rows

SENT = "SELECT message_id FROM sent WHERE kind = 'fta' AND answer = %s ORDER BY sequence LIMIT 1"
REPLY = "SELECT message_id FROM inbox WHERE kind = 'acknowledgement' ORDER BY sequence LIMIT 1"
# Bytes of ours that no record names.
HEAD = "SELECT message_id FROM sent WHERE kind = 'head' ORDER BY sequence LIMIT 1"
WRONG = "decode(repeat('00', 32), 'hex')"
SWAP = "set_byte({0}, octet_length({0}) - 5, 255 - get_byte({0}, octet_length({0}) - 5))"
RECORD = (
    "UPDATE record SET record = convert_to(regexp_replace(convert_from(record, 'UTF8'),"
    " '\"envelope\":\"....', '\"envelope\":\"AAAA'), 'UTF8')"
    " WHERE action = 'message.sent' AND message_id = '{sent}'"
)

# What somebody who owns the database may do, the code of what is said then, whose message is
# named, and what else. Of several differences the first of what came in is told.
SPOILT: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "the bytes of a message": (
        "NB-3140", "sent", {"table": "envelope"},
        "DELETE FROM envelope WHERE message_id = '{sent}'",
    ),
    "the content of a message": (
        "NB-3140", "sent", {"table": "payload"},
        "DELETE FROM payload WHERE message_id = '{sent}'",
    ),
    "the record of a message": (
        "NB-3140", "sent", {"table": "record"},
        "DELETE FROM record WHERE action = 'message.sent' AND message_id = '{sent}'",
    ),
    "the row of a message": (
        "NB-3140", "sent", {"table": "sent"},
        "DELETE FROM sent WHERE message_id = '{sent}'",
    ),
    "the row of a reply": (
        "NB-3140", "reply", {"table": "inbox"},
        "DELETE FROM inbox WHERE message_id = '{reply}'",
    ),
    "the row of what is on no record": (
        "NB-3140", "head", {"table": "sent or inbox"},
        "DELETE FROM sent WHERE message_id = '{head}'",
    ),
    "a byte of a signature": (
        "NB-3141", "sent", {"table": "envelope"},
        f"UPDATE envelope SET envelope = {SWAP.format('envelope')} WHERE message_id = '{{sent}}'",  # noqa: S608 - constants
    ),
    "the hash in a record": ("NB-3141", "sent", {"table": "envelope"}, RECORD),
    "bytes in the place of others": (
        "NB-3142", "reply", {"table": "inbox", "column": "message_id"},
        "UPDATE envelope SET envelope = (SELECT envelope FROM envelope WHERE message_id = '{sent}')"
        " WHERE message_id = '{reply}'",
    ),
    **{
        f"the {column} of a message": (
            "NB-3142", "sent", {"table": "sent", "column": column},
            f"UPDATE sent SET {column} = {value} WHERE message_id = '{{sent}}'",  # noqa: S608 - constants
        )
        for column, value in {
            "envelope_hash": WRONG,
            "stream": "'{{ice.hhs.backlog.0}}:out'",
            "generation": "2",
            "sequence": "sequence + 1000",
            "kind": "'nilreturn'",
            "notice_id": "gen_random_uuid()",
            "revision": "revision + 1",
            "sequenced_at": "sequenced_at + interval '1 second'",
            "answered_at": "answered_at + interval '1 second'",
        }.items()
    },
    **{
        f"the {column} of a reply": (
            "NB-3142", "reply", {"table": "inbox", "column": column},
            f"UPDATE inbox SET {column} = {value} WHERE message_id = '{{reply}}'",  # noqa: S608 - constants
        )
        for column, value in {
            "received_at": "received_at + interval '1 second'",
            "record_id": "record_id - 1",
            "state": "'control'",
        }.items()
    },
    "the bytes of a content": (
        "NB-3143", "sent", {},
        f"UPDATE payload SET body = {SWAP.format('body')} WHERE message_id = '{{sent}}'",  # noqa: S608 - constants
    ),
    "the salt of a content": (
        "NB-3143", "sent", {},
        f"UPDATE payload SET salt = {WRONG} WHERE message_id = '{{sent}}'",  # noqa: S608 - constants
    ),
    "a content that is called erased and is there": (
        "NB-3143", "sent", {},
        "UPDATE payload SET erased_at = now() WHERE message_id = '{sent}'",
    ),
    "an answer that is called not owed": (
        "NB-3144", "sent", {"rule": "it is noted that none is owed"},
        "UPDATE sent SET answer = 'none' WHERE message_id = '{sent}'",
    ),
    "who gave an answer": (
        "NB-3144", "sent", {"rule": "no message is named that gave it"},
        "UPDATE sent SET answer_message = NULL WHERE message_id = '{sent}'",
    ),
    "another who gave an answer": (
        "NB-3144", "sent", {"rule": "no record under the checkpoint is its receipt"},
        "UPDATE sent SET answer_message = (SELECT message_id FROM inbox WHERE kind = 'refusal'"
        " LIMIT 1) WHERE message_id = '{sent}'",
    ),
    "the place of a receipt": (
        "NB-3144", "sent", {"rule": "no record under the checkpoint is its receipt"},
        "UPDATE sent SET answer_index = answer_index + 1 WHERE message_id = '{sent}'",
    ),
    "the code of a refusal": (
        "NB-3144", "refused", {"rule": "the message that gave it refuses another"},
        "UPDATE sent SET answer_code = 'NB-2010' WHERE message_id = '{refused}'",
    ),
    "that there is an answer": (
        "NB-3144", "sent", {},
        "UPDATE sent SET answer = NULL, answer_message = NULL, answer_index = NULL,"
        " answered_at = NULL WHERE message_id = '{sent}'",
    ),
    "a party file": (
        "NB-3145", "", {"agency": "hhs"},
        "UPDATE party SET party = set_byte(party, 5, 0) WHERE agency = 'hhs'",
    ),
}  # fmt: skip


class _UndoneError(Exception):
    """Ends a transaction, so that nothing of it stays."""


@dataclass
class Spoilt:
    """A store in the middle of a transaction that spoilt it; as a store for who verifies it."""

    tx: Transaction

    @asynccontextmanager
    async def transaction(self, *, seconds: float) -> AsyncIterator[Transaction]:
        assert seconds
        yield self.tx


async def verified_after(store: Store, statement: str) -> Contents:
    """Return what is found once a statement changed the store, and undo it."""
    with suppress(_UndoneError):
        async with store.transaction() as tx:
            # No trigger stops who owns the database.
            await tx.execute("SET LOCAL session_replication_role = replica")
            cursor = await tx.execute(statement.encode())
            assert cursor.rowcount > 0, statement
            found = await verify_contents(cast("Store", Spoilt(tx)))
            raise _UndoneError
    return found


async def test_each_change_beside_the_ledger_is_named(
    worked_life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    ice = worked_life.pair.ice
    found = {
        name: (await rows(ice, query, *arguments))[0][0]
        for name, query, *arguments in (
            ("sent", SENT, "receipt"),
            ("refused", SENT, "refusal"),
            ("reply", REPLY),
            ("head", HEAD),
        )
    }
    assert len(set(found.values())) == 4
    whole = await verify_contents(ice.store)
    assert whole.difference is None
    assert min(whole.messages, whole.answers) > 5

    async def nothing(_: Transaction) -> None:
        """Nobody else changes anything meanwhile."""

    monkeypatch.setattr(audit, "hold_still", nothing)
    for what, (code, named, more, statement) in SPOILT.items():
        difference = (await verified_after(ice.store, statement.format(**found))).difference
        assert difference is not None, what
        assert difference.code == code, (what, difference.sentence)
        if named:
            assert UUID(str(difference.where["message_id"])) == found[named], (what, difference)
        assert difference.where.items() >= more.items(), (what, difference.where)
    assert (await verify_contents(ice.store)).difference is None


async def spoil(store: Store, statement: str) -> None:
    async with store.transaction() as tx:
        await tx.execute("SET LOCAL session_replication_role = replica")
        cursor = await tx.execute(statement.encode())
        assert cursor.rowcount > 0, statement


@pytest.fixture
def small_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few messages make many shares."""
    monkeypatch.setattr(shares, "MESSAGES_A_SHARE", 2)


async def read_by_the_other(store: Store) -> Contents:
    """Verify with a second process that reads every share but what follows a difference."""
    async with reading(store, apart_from=0) as read:
        assert read.helping is not None
        assert len(read.shares) > 4
        await read.helping
        return await read.finish()


@pytest.mark.usefixtures("small_shares")
async def test_another_process_finds_what_this_one_finds(worked_life: Life) -> None:
    store = worked_life.pair.ice.store
    one = await verify_contents(store)
    assert one.difference is None
    [(kept,)] = await rows(
        worked_life.pair.ice, "SELECT (SELECT count(*) FROM sent) + (SELECT count(*) FROM inbox)"
    )
    assert one.messages == kept > 5

    assert await read_by_the_other(store) == one
    assert await verify_contents(store, apart_from=one.messages) == one
    async with reading(store, apart_from=one.messages + 1) as read:
        assert read.helping is None

    [(sent,)] = await rows(worked_life.pair.ice, SENT, "receipt")
    [(reply,)] = await rows(worked_life.pair.ice, REPLY)
    await spoil(store, SPOILT["the salt of a content"][-1].format(sent=sent))
    # Of two the one that came in is told.
    for code, named, what in (
        ("NB-3143", sent, None),
        ("NB-3142", reply, "the received_at of a reply"),
    ):
        if what is not None:
            await spoil(store, SPOILT[what][-1].format(reply=reply))
        for found in (
            await read_by_the_other(store),
            await verify_contents(store, apart_from=0),
            await verify_contents(store),
        ):
            assert found.difference is not None
            where = found.difference.where
            assert (found.difference.code, str(where["message_id"])) == (code, str(named))


@pytest.mark.usefixtures("small_shares")
async def test_what_a_second_process_did_not_read_is_read_by_the_first(
    worked_life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = worked_life.pair.ice.store
    one = await verify_contents(store)
    answer = Beside.answer

    async def killed_later(self: Beside, *, seconds: float) -> dict[str, Any] | None:
        said = await answer(self, seconds=seconds)
        if said is None or not said["more"]:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        return said

    monkeypatch.setattr(Beside, "answer", killed_later)

    async with reading(store, apart_from=0) as read:
        assert read.helping is not None
        await read.helping
        # It answered once, and perhaps its next answer was already on the way.
        assert 0 < read.walk.counts.messages < one.messages
        assert await read.finish() == one


async def test_what_was_refused_and_taken_later_came_when_it_was_refused(whole_life: Life) -> None:
    """Its record is of the later moment and says since when; else the refusal tells it."""
    hhs = whole_life.pair.hhs
    early = (
        "SELECT i.message_id, i.received_at FROM inbox AS i JOIN record AS r USING (record_id)"
        " WHERE i.received_at < r.recorded_at AND i.state = 'applied'"
    )
    [(message_id, came_at)] = await rows(hhs, early)
    came = (message_id, came_at)

    async with hhs.store.transaction() as tx:
        found = await shares.set_aside(tx, [came, (message_id, came_at - timedelta(seconds=1))])
    assert found == {came}
    assert (await verify_contents(hhs.store)).difference is None
    moved = "UPDATE inbox SET received_at = received_at - interval '1 second' WHERE message_id = "
    await spoil(hhs.store, f"{moved}'{message_id}'")
    difference = (await verify_contents(hhs.store)).difference

    assert difference is not None
    where = {"table": "inbox", "message_id": message_id, "column": "received_at"}
    assert (difference.code, difference.where) == ("NB-3142", where)


async def test_a_ledger_with_a_revoked_key_is_read_by_one_process(
    worked_life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Walk, "revoked", True)
    store = worked_life.pair.ice.store

    async with reading(store, apart_from=0) as read:
        assert read.helping is None
        assert (await read.finish()).difference is None
