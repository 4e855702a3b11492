"""What a notice does at HHS: it opens a case, or changes what a case rests on.

Runs inside the transaction that takes the message, so a notice and its case stand or fall together.
A withdrawal takes a case off the queue and keeps everything that was done in it; a correction after
it puts the case back where it was. Else a correction or status update changes the facts and never
who works the case or when it is due. Where the notice itself was refused, the revision that stands
in for it opens the case, as of when the notice came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from schemas import codes
from schemas.envelope import Kind, Lane
from schemas.errors import RejectedError
from schemas.notice import Notice, NoticeKind
from services.exchange.effects import Answered, Taken
from services.hhs import clocks, store
from services.hhs.store import ArrivedRow, CaseEvent
from services.ledger.records import make_record
from services.ledger.store import Transaction, append_returning

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CaseWork:
    """HHS's part of taking a message."""

    async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
        """Open and change cases; each notice's revisions come in order.

        Raises `RejectedError`: NB-8001 where envelope and body name different notices, NB-8002 for
        a kind that ICE does not send.
        """
        notices = [(message, _notice_of(message)) for message in messages if _is_notice(message)]
        new = [(m, n) for m, n in notices if n.notice_kind is NoticeKind.NEW]
        if new:
            await store.open_cases(tx, [_row(message, notice) for message, notice in new])
        later = [(m, n) for m, n in notices if n.notice_kind is not NoticeKind.NEW]
        # One statement changes a case once: revisions of the same notice go one after the other.
        for revision in sorted({notice.revision for _, notice in later}):
            await self._revise(tx, [(m, n) for m, n in later if n.revision == revision])

    async def answered(self, tx: Transaction, answers: Sequence[Answered]) -> None:
        """Do nothing: that ICE has our reply changes no case; a trace reads it from `sent`."""

    async def _revise(self, tx: Transaction, changes: Sequence[tuple[Taken, Notice]]) -> None:
        found = await store.revise_cases(tx, [_row(m, n) for m, n in changes])
        unknown = [(m, n) for m, n in changes if n.notice_id not in found]
        for message, notice in unknown:
            if not message.stands_in:
                raise RejectedError("NB-8003", notice_id=notice.notice_id)
        if unknown:
            # The notice itself was refused, and this stands in for it: the clock runs since then.
            rows = [_row(message, notice) for message, notice in unknown]
            await store.open_cases(tx, rows)
            await store.revise_cases(tx, rows)
        for message, notice in changes:
            log.info(
                "case changed",
                notice_id=str(notice.notice_id),
                revision=notice.revision,
                notice_kind=str(notice.notice_kind),
                message_id=str(message.message_id),
            )
        events = [
            (
                notice.notice_id,
                CaseEvent(
                    event=_EVENTS[notice.notice_kind],
                    code=None if notice.reason_code is None else str(notice.reason_code),
                    actor=None,
                    happened_at=message.received_at,
                ),
            )
            for message, notice in changes
        ]
        records = await append_returning(
            tx,
            [
                make_record(
                    f"case.{_EVENTS[notice.notice_kind]}",
                    # Held messages are applied together, and each came at a time of its own.
                    time=message.received_at,
                    notice_id=notice.notice_id,
                    message_id=message.message_id,
                    reason=None if notice.reason_code is None else str(notice.reason_code),
                    policy=codes.policy().version,
                    detail={"revision": notice.revision},
                )
                for message, notice in changes
            ],
        )
        await store.add_events(tx, events, records)


_EVENTS = {
    NoticeKind.CORRECTION: "corrected",
    NoticeKind.STATUS_UPDATE: "updated",
    NoticeKind.WITHDRAWAL: "withdrawn",
}


def _is_notice(message: Taken) -> bool:
    match message.kind:
        case Kind.FTA:
            return True
        case Kind.NILRETURN:
            # An office had nothing to send: its record and content are kept, no case follows.
            return False
        case _:
            raise RejectedError("NB-8002", kind=str(message.kind))


def _notice_of(message: Taken) -> Notice:
    notice = message.body
    assert isinstance(notice, Notice)
    if (notice.notice_id, notice.revision) != (message.notice_id, message.revision):
        raise RejectedError("NB-8001", message_id=message.message_id)
    return notice


def _row(message: Taken, notice: Notice) -> ArrivedRow:
    return ArrivedRow(
        notice_id=notice.notice_id,
        office=notice.aor_code,
        outcome=notice.outcome,
        base_city=notice.base_city_code,
        hearing_at=notice.hearing_at,
        hearing_zone=notice.hearing_zone,
        priority=notice.priority,
        lane=message.attributes.lane,
        revision=notice.revision,
        notice_kind=notice.notice_kind,
        message_id=message.message_id,
        opened_at=_opened_at(message),
        due_at=_due(message, notice),
        received_at=message.received_at,
    )


def _opened_at(message: Taken) -> datetime:
    """Return when a case's clock began: a notice that was refused at first waited since then."""
    return message.received_at if message.since is None else message.since


def _due(message: Taken, notice: Notice) -> datetime:
    return clocks.take_due(
        codes.policy(),
        priority=notice.priority,
        lane=Lane(message.attributes.lane),
        opened_at=_opened_at(message),
    )
