"""The code rules: which of the court's codes mean that a hearing was missed.

The codes and what each means for a notice are data (`schemas/codes`); what is written here is how
they go together. An order or an administrative closing is the court's own word and goes out; what
only hints at an absence, or may have been vacated, waits for a person; a trap is nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from schemas import codes
from schemas.codes import CodeList, Treatment
from schemas.notice import HearingOutcome, ReasonCode
from services.ice.docket.findings import ConfirmCode
from services.ice.docket.rejects import RowFault

E = TypeVar("E")


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What the court says of one hearing, in its codes; None where a field is empty.

    `order` is set for a proceeding, whose codes are `absentia` to `case_type`; the others are those
    of the schedule row of that day. `moved` says that a venue change or transfer is noted.
    """

    order: bool
    absentia: str | None = None
    other_comp: str | None = None
    case_type: str | None = None
    moved: bool = False
    rec_type: str | None = None
    adj_rsn: str | None = None
    medium: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a hearing; `confirm` says why a person is asked first."""

    treatment: Treatment
    outcome: HearingOutcome | None = None
    confirm: ConfirmCode | None = None


NOTHING = Decision(Treatment.NONE)


def decide(said: Codes) -> Decision:
    """Return what the codes of a hearing mean for a notice.

    Raises `RowFault` NB-1037 for a code that is not in its list, and NB-1022 for an order whose
    case type is not known, without which it cannot be decoded.
    """
    return _of_proceeding(said) if said.order else _of_adjournment(said)


def _of_proceeding(said: Codes) -> Decision:
    flag = _meaning(codes.absentia_flags(), said.absentia, "ABSENTIA")
    completion = _meaning(codes.other_completions(), said.other_comp, "OTHER_COMP")
    if flag is not None and flag.treatment is not Treatment.NONE:
        outcome = flag.outcome
        if said.case_type is None:
            raise RowFault("NB-1022", "CASE_TYPE")
        kind = _meaning(codes.case_types(), said.case_type, "CASE_TYPE")
        plain = kind is not None and kind.treatment is Treatment.SEND
    elif completion is not None and completion.treatment is not Treatment.NONE:
        outcome, plain = completion.outcome, True
    else:
        return NOTHING
    if said.moved or (completion is not None and completion.holds):
        return Decision(Treatment.CONFIRM, outcome, ConfirmCode.VENUE_CHANGED)
    if not plain:
        return Decision(Treatment.CONFIRM, outcome, ConfirmCode.CASE_TYPE)
    if not _held(said.medium) or said.adj_rsn in traps():
        return Decision(Treatment.CONFIRM, outcome, ConfirmCode.CODES_DISAGREE)
    return Decision(Treatment.SEND, outcome)


def _of_adjournment(said: Codes) -> Decision:
    record = _meaning(codes.record_types(), said.rec_type, "REC_TYPE")
    if record is None or not record.candidate:
        return NOTHING
    reason = _meaning(codes.adjournments(), said.adj_rsn, "ADJ_RSN")
    if reason is None or reason.treatment is Treatment.NONE or not _held(said.medium):
        return NOTHING
    confirm = None if reason.treatment is Treatment.SEND else ConfirmCode.WHO_WAS_ABSENT
    return Decision(reason.treatment, HearingOutcome.MISSED_NO_ORDER, confirm)


def _meaning(listed: CodeList[E], code: str | None, column: str) -> E | None:
    if code is None:
        return None
    entry = listed.get(code)
    if entry is None:
        raise RowFault("NB-1037", column)
    return entry


def _held(medium: str | None) -> bool:
    """Tell whether a hearing took place; a medium that nobody knows is no reason to say no."""
    known = codes.court_media().get(medium) if medium else None
    return known is None or known.held


def takes_back(said: Codes, outcome: str) -> ReasonCode | None:
    """Return why a hearing that was known as `outcome` is no longer missed, by these codes.

    None where they do not say: an empty field, or a code that nobody knows. The caller has made
    sure that `decide` does not find the hearing missed any more.
    """
    ordered = outcome != HearingOutcome.MISSED_NO_ORDER
    if said.order:
        if not ordered:
            return None
        completion = codes.other_completions().get(said.other_comp or "")
        moved = said.moved or (completion is not None and completion.holds)
        return ReasonCode.VENUE_CHANGED if moved else ReasonCode.ORDER_RESCINDED
    if not _held(said.medium):
        return ReasonCode.HEARING_VACATED
    reason = codes.adjournments().get(said.adj_rsn or "")
    if reason is None or reason.treatment is not Treatment.NONE:
        return None
    if reason.if_sent is not None:
        return reason.if_sent
    if reason.trap:
        return ReasonCode.HEARING_VACATED
    # Put off for a reason that is nobody's absence. Beside an order that says nothing: the hearing
    # at which it was made is always put off or completed.
    return None if ordered else ReasonCode.APPEARED_LATE


@cache
def traps() -> Collection[str]:
    """Return the adjournment codes under which nobody missed a hearing."""
    return frozenset(code for code, said in codes.adjournments().codes.items() if said.trap)


@cache
def innocent(column: str) -> Collection[str]:
    """Return the codes of a column that alone make no hearing worth looking at.

    The tables are searched for what is in none of these lists, so a new code is looked at.
    """
    match column:
        case "ABSENTIA":
            entries = codes.absentia_flags().codes.items()
            return frozenset(c for c, said in entries if said.treatment is Treatment.NONE)
        case "OTHER_COMP":
            ends = codes.other_completions().codes.items()
            return frozenset(c for c, said in ends if said.treatment is Treatment.NONE)
        case "ADJ_RSN":
            reasons = codes.adjournments().codes.items()
            return frozenset(c for c, said in reasons if said.treatment is Treatment.NONE)
        case _:
            raise AssertionError(column)


@cache
def defects() -> Collection[str]:
    """Return the adjournment codes that say the notice of the hearing itself was wrong."""
    return frozenset(
        code
        for code, said in codes.adjournments().codes.items()
        if said.if_sent is ReasonCode.NOTICE_DEFECT
    )


@cache
def unheld() -> Collection[str]:
    """Return the media that say that no hearing was held."""
    return frozenset(code for code, said in codes.court_media().codes.items() if not said.held)


@cache
def candidates() -> Collection[str]:
    """Return the record types of schedule rows that can be a hearing of the proceeding."""
    return frozenset(code for code, said in codes.record_types().codes.items() if said.candidate)


def flags(column: str) -> Collection[str]:
    """Return the court's codes of a column that mark an unaccompanied child."""
    listed = {
        "idnJuvenile": codes.juveniles,
        "casePriority_code": codes.case_priorities,
        "CASEPRIORITY_CODE": codes.case_priorities,
        "CASE_ID": codes.case_identifiers,
    }[column]()
    return frozenset(code for code, said in listed.codes.items() if said.scope is codes.Scope.IN)
