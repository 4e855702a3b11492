"""What ICE derives from messages: the replies to its notices.

Each reply stands for itself: it is there as it was received, or it is missing, or it is another.
Obligations, their revisions and what was sent are ICE's own doing, and no replay touches them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from schemas.envelope import Kind
from schemas.reply import Acknowledgement, Action, Disposition, Outcome
from services.exchange.recorded import Ahead, Finding, Readable, Standing, differences
from services.ice.store import projection as store
from services.ice.store.replies import ReplyRow
from services.ledger.store import Transaction

FIELDS = tuple(ReplyRow.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class ReplyProjection:
    """The replies that ICE keeps."""

    kinds: frozenset[Kind] = frozenset(
        {Kind.ACKNOWLEDGEMENT, Kind.DISPOSITION, Kind.ACTION, Kind.OUTCOME}
    )

    async def hold(self, tx: Transaction, notices: Sequence[UUID]) -> None:
        """Keep further replies to these notices out until the transaction ends."""
        await store.hold(tx, notices)

    async def compare(
        self, tx: Transaction, messages: Sequence[Readable], ahead: Ahead
    ) -> list[Finding]:
        """Return how each message stands to its reply; see `Projection.compare`."""
        rows = [_reply(message) for message in messages]
        stored = await store.standing(tx, rows)
        by_message = {row.message_id: row for row in stored}
        by_place = {(row.notice_id, row.revision): row for row in stored}
        return [
            _compare(
                row, by_message.get(row.message_id) or by_place.get((row.notice_id, row.revision))
            )
            for row in rows
        ]

    async def apply(
        self, tx: Transaction, messages: Sequence[Readable], findings: Sequence[Finding]
    ) -> None:
        """Write the replies that are missing or other than received."""
        wrong = (Standing.NEW, Standing.CHANGED)
        await store.put(
            tx,
            [
                _reply(message)
                for message, finding in zip(messages, findings, strict=True)
                if finding.standing in wrong
            ],
        )


def _compare(row: ReplyRow, stored: ReplyRow | None) -> Finding:
    found = differences(stored, row, FIELDS)
    if stored is None:
        return Finding(Standing.NEW, found)
    return Finding(Standing.CHANGED if found else Standing.SAME, found)


def _reply(message: Readable) -> ReplyRow:
    body, recorded = message.body, message.message
    code: str | None = None
    match body:
        case Disposition():
            code = str(body.disposition if body.code is None else body.code)
        case Action() | Outcome():
            code = str(body.code)
        case _:
            assert isinstance(body, Acknowledgement)
    assert recorded.revision is not None
    return ReplyRow(
        notice_id=body.notice_id,
        revision=recorded.revision,
        kind=str(recorded.kind),
        code=code,
        message_id=recorded.message_id,
        happened_at=body.at,
        received_at=recorded.at,
    )
