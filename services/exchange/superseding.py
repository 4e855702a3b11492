"""Let a later revision stand in for one that was refused, so that a correction can be applied.

Revisions are applied in order, and one that was refused would hold up all that follow. Its sender
says what is to be taken instead: a message names in `causationid` the refused one, of the same
notice. Each revision says everything that is known, so what was refused up to there is stepped
over, and nothing else: what is missing or held is still waited for. The dead letters are resolved
when the message that stands in for them is applied, never before.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from schemas.canonical import format_time
from schemas.envelope import Attributes, read
from services.exchange.store import dead, incoming
from services.ledger.records import make_record
from services.ledger.store import Transaction, append

Claim = tuple[UUID, UUID, int]
"""A message's cause, its notice and its revision."""


def claims_of(messages: Sequence[Attributes]) -> list[Claim]:
    """Return what verified messages say they stand in for; most say nothing."""
    return [
        (each.causationid, each.subject, each.revision)
        for each in messages
        if each.causationid is not None and each.subject is not None and (each.revision or 0) > 1
        if each.revision is not None
    ]


async def step_over(
    tx: Transaction, messages: Sequence[Attributes], revisions: dict[UUID, int]
) -> dict[UUID, int]:
    """Move `revisions` (how far notices were applied) over what `messages` stand in for.

    Returns the notices that were moved; the caller writes how far each came, in this transaction.
    """
    claims = claims_of(messages)
    if not claims:
        return {}
    concerned = await incoming.supersede(tx, claims)
    moved: dict[UUID, int] = {}
    for notice_id, passed in (await incoming.superseded(tx, sorted(concerned))).items():
        done = revisions.get(notice_id, 0)
        while done + 1 in passed:
            done += 1
        if done != revisions.get(notice_id, 0):
            revisions[notice_id] = moved[notice_id] = done
    return moved


async def give_way(tx: Transaction, notice_id: UUID | None) -> None:
    """Mark what was just refused of a notice, if a message that is held stands in for it."""
    if notice_id is None:
        return
    held = await incoming.held_of(tx, notice_id)
    said = [read(each.envelope).claims for each in held]
    claims = claims_of([attributes for attributes in said if attributes is not None])
    if claims:
        await incoming.supersede(tx, claims)


async def arrivals(tx: Transaction, messages: Sequence[Attributes]) -> dict[UUID, datetime]:
    """Return, by message id, when the first of what a message stands in for arrived."""
    named = {each.id: n for each in messages for _, n, _ in claims_of([each])}
    if not named:
        return {}
    passed = await incoming.superseded(tx, sorted(set(named.values())))
    return {
        message_id: min(passed[notice_id].values())
        for message_id, notice_id in named.items()
        if notice_id in passed
    }


def said(since: datetime | None) -> dict[str, str] | None:
    """Return what a record says of a message whose clocks began before it was taken."""
    return None if since is None else {"since": format_time(since)}


async def resolve(tx: Transaction, applied: Sequence[Attributes], now: datetime) -> None:
    """Close the dead letters that messages stood in for, now that these were applied."""
    standing_in = [(n, r, each.id) for each in applied for _, n, r in claims_of([each])]
    if not standing_in:
        return
    resolved = await dead.correct(tx, standing_in, now)
    await append(
        tx,
        [
            make_record(
                "dead.corrected",
                time=now,
                notice_id=notice_id,
                message_id=message_id,
                detail={"dead_id": str(dead_id), "by": str(by)},
            )
            for dead_id, notice_id, message_id, by in resolved
        ],
    )
