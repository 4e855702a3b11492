"""The docket takes back what it said, or says it again after all: what a person is asked then.

A release that no longer shows a hearing as missed asks about it: whether to withdraw what was sent,
or whether to send what waits. One that shows it missed again ends that question; where a person
said yes to it, they are asked the other way round. Nothing is sent by itself, and what a person
decided is not asked again for the same reason. Each turn is on record. A release has no say about
what was said after it was first read, so that reading it again changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from schemas.notice import HearingOutcome
from services.ice.docket.findings import ConfirmCode, Finding
from services.ice.importing import Importing, Opened
from services.ice.revisions import record_of
from services.ice.store import obligations as store
from services.ice.store.obligations import Obligation, Question, Turned
from services.ledger.store import Transaction, append

# Why a person is asked about a hearing that was never sent and that the docket took back.
TAKEN_BACK = "TAKEN_BACK"
# Why one is asked whether to send a notice again that was withdrawn on the docket's word.
MISSED_AGAIN = "MISSED_AGAIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversal:
    """A known hearing of which the docket says something else now: a question, or the end of one.

    `action` and `code` are what the record says; without a question the state is `state` again.
    """

    row: Obligation
    action: str
    code: str
    question: Question | None = None
    state: str = ""


def concerns(row: Obligation) -> bool:
    """Tell whether the docket has taken a hearing back, as far as its state tells."""
    return (
        row.confirm == "withdrawal"
        or row.state == "withdrawn"
        or TAKEN_BACK in (row.confirm_code, *row.kept_codes)
    )


def missed_again(
    finding: Finding, row: Obligation, *, turned: Turned | None, since: datetime
) -> Reversal | None:
    """Return what becomes of a hearing that was taken back and is found again; None for nothing.

    `since` is when the release was first read. Where people had the last word they know better.
    """
    if turned is None or turned.docket_at is None or turned.docket_at >= since:
        return None
    if _took_back(finding, row):
        return None
    if row.confirm == "withdrawal":
        return Reversal(row=row, action="notice.unasked", code=MISSED_AGAIN, state="recorded")
    # What waits or was dismissed and is the court's decision now is not asked, or asked as that.
    waits = row.confirm_code == TAKEN_BACK or (row.state == "dismissed" and row.content is not None)
    if row.state == "withdrawn":
        code = MISSED_AGAIN
    elif waits and finding.confirm_code is not None:
        code = str(finding.confirm_code)
    else:
        return None
    if code in row.kept_codes:
        return None
    question = Question(notice_id=row.notice_id, confirm="send", confirm_code=code)
    return Reversal(row=row, action="notice.to_confirm", code=code, question=question)


def taken_back(
    row: Obligation, code: str, *, turned: Turned | None, since: datetime
) -> Reversal | None:
    """Return what becomes of a hearing that a release takes back with `code`; None for nothing.

    A notice that was sent is up for withdrawal. One that still waits to be sent goes on waiting and
    says why it should perhaps be dismissed; one that was withdrawn already stays so.
    """
    if turned is not None and turned.last_at >= since:
        return None
    if row.withdrawn and row.confirm is not None:
        return Reversal(row=row, action="notice.unasked", code=code, state="withdrawn")
    if row.confirm == "send":
        confirm, code = "send", TAKEN_BACK
    elif row.state == "recorded" or row.confirm == "withdrawal":
        confirm = "withdrawal"
    else:
        return None
    if code in (row.confirm_code, *row.kept_codes):
        return None
    question = Question(notice_id=row.notice_id, confirm=confirm, confirm_code=code)
    return Reversal(row=row, action="notice.taken_back", code=code, question=question)


def _took_back(finding: Finding, row: Obligation) -> bool:
    """Tell whether the finding itself is why the hearing was taken back: it moved since."""
    moved = finding.confirm_code is ConfirmCode.VENUE_CHANGED
    return moved and row.revision > 0 and row.outcome != HearingOutcome.MISSED_NO_ORDER


async def write(tx: Transaction, reversals: Sequence[Reversal], importing: Importing) -> Opened:
    """Ask what is to be asked, end what is to end, each with its record."""
    if not reversals:
        return Opened()
    questions = [each.question for each in reversals if each.question is not None]
    ended = [(each.row.notice_id, each.state) for each in reversals if each.question is None]
    if questions:
        await store.ask(tx, questions)
    if ended:
        await store.end_questions(tx, ended)
    await append(
        tx,
        [
            record_of(
                each.action,
                now=importing.now,
                actor=importing.actor,
                office=each.row.office,
                notice_id=each.row.notice_id,
                reason=each.code,
            )
            for each in reversals
        ],
    )
    back = [each.question for each in reversals if each.action == "notice.taken_back"]
    withdrawals = sum(each is not None and each.confirm == "withdrawal" for each in back)
    return Opened(
        withdrawals=withdrawals,
        taken_back=len(back) - withdrawals,
        asked_again=len(questions) - len(back),
        unasked=len(ended),
    )
