"""What HHS replies is kept at ICE, moves the notice's state, and goes on record."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from schemas.envelope import Attributes, Kind, Lane, source_of
from schemas.errors import RejectedError
from schemas.reply import (
    Acknowledgement,
    Action,
    ActionCode,
    Disposition,
    DispositionCode,
    DispositionVerdict,
    Head,
    Outcome,
    OutcomeCode,
)
from services.exchange.effects import Taken
from services.ice import notices
from services.ice.effects import IceEffects
from services.ledger.store import Store
from tests.notices_made import by_hand, opened_store

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
Reply = Acknowledgement | Disposition | Action | Outcome | Head


@pytest.fixture
async def ice(database: Callable[[str], str]) -> AsyncIterator[Store]:
    async with opened_store(database("ice"), "ice") as store:
        yield store


def a_reply(kind: Kind, notice_id: UUID, revision: int, body: Reply) -> Taken:
    attributes = Attributes(
        id=uuid7(),
        kind=kind,
        version=1,
        source=source_of("hhs.noticebus.example", "hhs"),
        subject=notice_id,
        time=NOW,
        sequence=revision,
        correlationid=notice_id,
        causationid=None,
        recipient="ice",
        lane=Lane.LIVE,
        partition=0,
        generation=1,
        revision=revision,
        commitment=b"\x00" * 32,
        dataschema=f"https://noticebus.example/schemas/{kind}.v1.json",
    )
    return Taken(
        message_id=attributes.id,
        kind=kind,
        notice_id=notice_id,
        revision=revision,
        body=body,
        attributes=attributes,
        received_at=NOW,
    )


async def apply(store: Store, messages: Sequence[Taken]) -> None:
    async with store.transaction() as tx:
        await IceEffects().apply(tx, messages)


async def test_replies_move_the_state_of_a_notice(ice: Store) -> None:
    notice_id = (await notices.send(ice, by_hand(), actor="officer")).item.notice_id
    acknowledgement = Acknowledgement(notice_id=notice_id, at=NOW)
    outcome = Outcome(notice_id=notice_id, code=OutcomeCode.IN_CARE, at=NOW)

    await apply(ice, [a_reply(Kind.ACKNOWLEDGEMENT, notice_id, 1, acknowledgement)])
    [acknowledged] = await notices.listed(ice)
    await apply(ice, [a_reply(Kind.OUTCOME, notice_id, 2, outcome)])
    [closed] = await notices.listed(ice)

    assert (acknowledged.state, acknowledged.acknowledged_at) == ("acknowledged", NOW)
    assert (closed.state, closed.outcome_code, closed.closed_at) == ("closed", "IN_CARE", NOW)


async def test_every_kind_of_reply_is_kept_and_recorded_with_its_code(ice: Store) -> None:
    notice_id = (await notices.send(ice, by_hand(), actor="officer")).item.notice_id
    held = Disposition(
        notice_id=notice_id,
        disposition=DispositionVerdict.HELD,
        code=DispositionCode.NEED_INFO,
        at=NOW,
    )
    accepted = Disposition(notice_id=notice_id, disposition=DispositionVerdict.ACCEPTED, at=NOW)
    action = Action(notice_id=notice_id, code=ActionCode.ACTION_STARTED, at=NOW)

    await apply(
        ice,
        [
            a_reply(Kind.DISPOSITION, notice_id, 1, held),
            a_reply(Kind.DISPOSITION, notice_id, 2, accepted),
            a_reply(Kind.ACTION, notice_id, 3, action),
        ],
    )

    async with ice.transaction() as tx:
        cursor = await tx.execute("SELECT record FROM record ORDER BY record_id OFFSET 1")
        said = [json.loads(row[0]) for row in await cursor.fetchall()]
    assert [(each["action"], each["reason"]) for each in said] == [
        ("notice.disposition", "NEED_INFO"),
        ("notice.disposition", "ACCEPTED"),
        ("notice.action", "ACTION_STARTED"),
    ]


async def test_a_reply_that_cannot_be_ours_is_refused(ice: Store) -> None:
    notice_id = (await notices.send(ice, by_hand(), actor="officer")).item.notice_id
    stranger = uuid7()
    ours = Acknowledgement(notice_id=notice_id, at=NOW)
    theirs = Acknowledgement(notice_id=stranger, at=NOW)
    good = a_reply(Kind.ACKNOWLEDGEMENT, notice_id, 1, ours)
    head = Head(checkpoint="x", consistency=(), highest={}, since=0)

    for message, code in (
        (a_reply(Kind.ACKNOWLEDGEMENT, stranger, 1, theirs), "NB-1082"),
        (replace(good, notice_id=stranger), "NB-1081"),
        (replace(good, body=head, kind=Kind.HEAD), "NB-1080"),
    ):
        with pytest.raises(RejectedError) as caught:
            await apply(ice, [message])
        assert caught.value.code == code
    [item] = await notices.listed(ice)
    assert item.acknowledged_at is None
