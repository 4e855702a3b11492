"""The code rules, one test a code: what goes out, what is asked, what never becomes a notice."""

import pytest

from schemas import codes
from schemas.codes import Treatment
from schemas.notice import HearingOutcome, ReasonCode
from services.ice.docket import rules
from services.ice.docket.findings import ConfirmCode
from services.ice.docket.rejects import RowFault
from services.ice.docket.rules import Codes, Decision, decide, takes_back

ORDERED = HearingOutcome.IN_ABSENTIA_ORDER
CLOSED = HearingOutcome.ADMIN_CLOSED_FTA
MISSED = HearingOutcome.MISSED_NO_ORDER

# From the page that the rules rest on, by hand, so that a slip in the lists shows.
TRAPS = (
    "09 10 16 19 30 33 34 35 38 46 49 4A 55 59 5A 74 8A 96 97 99 9A 9B 9C 9V".split()  # noqa: SIM905
)
# Kinds of case in which a decision in absentia means a missed hearing.
SENDING = {"RMV", "AOC", "WHO", "DEP", "EXC"}


def an_adjournment(adj_rsn: str | None, rec_type: str = "A", medium: str = "P") -> Codes:
    return Codes(order=False, rec_type=rec_type, adj_rsn=adj_rsn, medium=medium)


def an_order(
    *,
    absentia: str | None = "Y",
    other_comp: str | None = None,
    case_type: str | None = "RMV",
    moved: bool = False,
    adj_rsn: str | None = "8B",
    medium: str = "P",
) -> Codes:
    return Codes(
        order=True,
        absentia=absentia,
        other_comp=other_comp,
        case_type=case_type,
        moved=moved,
        rec_type="A",
        adj_rsn=adj_rsn,
        medium=medium,
    )


def test_order_in_absentia_in_a_removal_case_is_sent_at_once() -> None:
    assert decide(an_order()) == Decision(Treatment.SEND, ORDERED)


@pytest.mark.parametrize("case_type", sorted(SENDING))
def test_order_is_sent_where_absence_means_a_missed_hearing(case_type: str) -> None:
    assert decide(an_order(case_type=case_type)).treatment is Treatment.SEND


@pytest.mark.parametrize(
    "case_type", sorted(set(codes.case_types()) - {"RMV", "AOC", "WHO", "DEP", "EXC"})
)
def test_order_in_another_kind_of_case_waits_for_a_person(case_type: str) -> None:
    decision = decide(an_order(case_type=case_type))

    assert decision == Decision(Treatment.CONFIRM, ORDERED, ConfirmCode.CASE_TYPE)


def test_order_is_never_decoded_without_its_case_type() -> None:
    with pytest.raises(RowFault, match="NB-1022"):
        decide(an_order(case_type=None))


def test_unknown_case_type_is_a_fault() -> None:
    with pytest.raises(RowFault, match="NB-1037"):
        decide(an_order(case_type="QQQ"))


@pytest.mark.parametrize("absentia", ["N", None])
def test_decision_that_was_not_made_in_absentia_is_nothing(absentia: str | None) -> None:
    assert decide(an_order(absentia=absentia)) == rules.NOTHING


def test_administrative_closing_for_failure_to_appear_is_sent_at_once() -> None:
    decision = decide(an_order(absentia=None, other_comp="B", case_type=None))

    assert decision == Decision(Treatment.SEND, CLOSED)


@pytest.mark.parametrize("other_comp", sorted(set(codes.other_completions()) - {"B"}))
def test_any_other_completion_alone_is_nothing(other_comp: str) -> None:
    assert decide(an_order(absentia=None, other_comp=other_comp)) == rules.NOTHING


@pytest.mark.parametrize("other_comp", ["C", "T"])
def test_order_beside_a_change_of_venue_or_transfer_waits_for_a_person(other_comp: str) -> None:
    decision = decide(an_order(other_comp=other_comp))

    assert decision == Decision(Treatment.CONFIRM, ORDERED, ConfirmCode.VENUE_CHANGED)


def test_order_in_a_proceeding_that_moved_waits_for_a_person() -> None:
    decision = decide(an_order(moved=True))

    assert decision == Decision(Treatment.CONFIRM, ORDERED, ConfirmCode.VENUE_CHANGED)


def test_closing_in_a_proceeding_that_moved_waits_for_a_person() -> None:
    decision = decide(an_order(absentia=None, other_comp="B", moved=True))

    assert decision == Decision(Treatment.CONFIRM, CLOSED, ConfirmCode.VENUE_CHANGED)


@pytest.mark.parametrize("adj_rsn", TRAPS)
def test_order_on_a_day_that_nobody_can_have_missed_waits_for_a_person(adj_rsn: str) -> None:
    decision = decide(an_order(adj_rsn=adj_rsn))

    assert decision == Decision(Treatment.CONFIRM, ORDERED, ConfirmCode.CODES_DISAGREE)


def test_order_without_a_hearing_held_waits_for_a_person() -> None:
    assert decide(an_order(medium="H")).confirm is ConfirmCode.CODES_DISAGREE


@pytest.mark.parametrize("rec_type", ["A", "X"])
def test_code_11_waits_for_a_person(rec_type: str) -> None:
    decision = decide(an_adjournment("11", rec_type))

    assert decision == Decision(Treatment.CONFIRM, MISSED, ConfirmCode.WHO_WAS_ABSENT)


@pytest.mark.parametrize("rec_type", ["B", "O"])
def test_bond_and_motion_rows_are_no_hearing(rec_type: str) -> None:
    assert decide(an_adjournment("11", rec_type)) == rules.NOTHING


def test_row_without_a_hearing_held_is_no_missed_hearing() -> None:
    assert decide(an_adjournment("11", medium="H")) == rules.NOTHING


@pytest.mark.parametrize("medium", ["P", "V", "T", "A", "W", "C", "Q"])
def test_medium_does_not_matter_otherwise(medium: str) -> None:
    assert decide(an_adjournment("11", medium=medium)).treatment is Treatment.CONFIRM


@pytest.mark.parametrize("adj_rsn", TRAPS)
def test_trap_never_becomes_a_notice(adj_rsn: str) -> None:
    assert adj_rsn in rules.traps()
    assert decide(an_adjournment(adj_rsn)) == rules.NOTHING


def test_traps_are_exactly_those_of_the_rules() -> None:
    assert sorted(rules.traps()) == sorted(TRAPS)


@pytest.mark.parametrize("adj_rsn", sorted(set(codes.adjournments()) - {"11", *TRAPS}))
def test_any_other_adjournment_is_nothing(adj_rsn: str) -> None:
    assert decide(an_adjournment(adj_rsn)) == rules.NOTHING


@pytest.mark.parametrize(
    "said",
    [
        an_adjournment("Q7"),
        an_adjournment("11", "Q"),
        an_order(absentia="Q"),
        an_order(absentia=None, other_comp="7"),
    ],
)
def test_code_that_nobody_knows_is_a_fault(said: Codes) -> None:
    with pytest.raises(RowFault, match="NB-1037"):
        decide(said)


@pytest.mark.parametrize(
    ("adj_rsn", "reason"),
    [
        ("10", ReasonCode.NOTICE_DEFECT),
        ("09", ReasonCode.IN_CUSTODY),
        ("16", ReasonCode.IN_CUSTODY),
        ("46", ReasonCode.HEARING_VACATED),
        ("59", ReasonCode.HEARING_VACATED),
        ("33", ReasonCode.HEARING_VACATED),
        ("99", ReasonCode.DATA_ENTRY),
        ("17", ReasonCode.APPEARED_LATE),
        ("11", None),
        ("Q7", None),
        (None, None),
    ],
)
def test_adjournment_takes_a_missed_hearing_back(
    adj_rsn: str | None, reason: ReasonCode | None
) -> None:
    assert takes_back(an_adjournment(adj_rsn), MISSED) is reason


def test_completed_hearing_does_not_take_its_order_back() -> None:
    assert takes_back(an_adjournment("8B"), ORDERED) is None


def test_order_that_is_gone_was_rescinded() -> None:
    assert takes_back(an_order(absentia="N"), ORDERED) is ReasonCode.ORDER_RESCINDED


def test_order_that_gave_way_to_a_move_was_changed_in_venue() -> None:
    said = an_order(absentia=None, other_comp="C")

    assert takes_back(said, ORDERED) is ReasonCode.VENUE_CHANGED


@pytest.mark.parametrize(
    ("column", "flagged"),
    [
        ("idnJuvenile", {"3", "4"}),
        ("casePriority_code", {"UC"}),
        ("CASE_ID", {"J2", "UJ"}),
    ],
)
def test_the_courts_flags_of_unaccompanied_children(column: str, flagged: set[str]) -> None:
    assert rules.flags(column) == flagged
