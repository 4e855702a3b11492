"""What a message from HHS does at ICE: it is kept as the reply to a notice, and put on record.

Replies are coarse and come in order of their revision. That a person took a notice, and what came
of it, is all that ICE hears; the view `notice` reads its states from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from schemas import codes
from schemas.envelope import Kind
from schemas.errors import RejectedError
from schemas.reply import Acknowledgement, Action, Disposition, Outcome
from services.exchange.effects import Answered, Taken
from services.ice.store import replies
from services.ice.store.replies import ReplyRow
from services.ledger.records import make_record
from services.ledger.store import Transaction, append

log = structlog.get_logger()

# What the ledger calls each reply.
_ACTIONS = {
    Kind.ACKNOWLEDGEMENT: "notice.acknowledged",
    Kind.DISPOSITION: "notice.disposition",
    Kind.ACTION: "notice.action",
    Kind.OUTCOME: "notice.closed",
}


@dataclass(frozen=True, slots=True)
class IceEffects:
    """ICE's part of taking a message."""

    async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
        """Keep replies.

        Raises `RejectedError`: NB-1080 for a kind that HHS does not send, NB-1081 where envelope
        and body name different notices, NB-1082 for a notice that is none of ours.
        """
        if not messages:
            return
        rows = [_row(message) for message in messages]
        strangers = await replies.unknown(tx, [row.notice_id for row in rows])
        for row in rows:
            if row.notice_id in strangers:
                raise RejectedError("NB-1082", notice_id=row.notice_id)
        await replies.add(tx, rows)
        await append(
            tx,
            [
                make_record(
                    _ACTIONS[Kind(row.kind)],
                    time=row.received_at,
                    notice_id=row.notice_id,
                    message_id=row.message_id,
                    reason=row.code,
                    policy=codes.policy().version,
                    detail={"revision": row.revision},
                )
                for row in rows
            ],
        )
        for row in rows:
            log.info("reply received", notice_id=str(row.notice_id), kind=row.kind, code=row.code)

    async def answered(self, tx: Transaction, answers: Sequence[Answered]) -> None:
        """Do nothing: the view `notice` reads receipts and refusals from `sent`."""


def _row(message: Taken) -> ReplyRow:
    body = message.body
    match body:
        case Acknowledgement():
            code = None
        case Disposition():
            code = str(body.disposition if body.code is None else body.code)
        case Action() | Outcome():
            code = str(body.code)
        case _:
            raise RejectedError("NB-1080", kind=str(message.kind))
    if message.notice_id != body.notice_id or message.revision is None:
        raise RejectedError("NB-1081", message_id=message.message_id)
    return ReplyRow(
        notice_id=body.notice_id,
        revision=message.revision,
        kind=str(message.kind),
        code=code,
        message_id=message.message_id,
        happened_at=body.at,
        received_at=message.received_at,
    )
