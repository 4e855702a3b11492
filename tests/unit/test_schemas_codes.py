"""Code lists: every one loads, says where it is from, and fits the models it speaks of."""

import json
from collections.abc import Callable
from datetime import date
from enum import StrEnum
from importlib.resources import files
from typing import Any

import pytest

from schemas import codes
from schemas.codes import CodeList, OfficeBasis, Scope, Treatment
from schemas.errors import RejectedError
from schemas.fields import zone_of
from schemas.notice import HearingOutcome, ReasonCode, UacBasis
from schemas.reply import ActionCode, DispositionCode, OutcomeCode

LISTS: dict[str, Callable[[], CodeList[Any]]] = {
    path.name.removesuffix(".json"): getattr(codes, path.name.removesuffix(".json"))
    for path in files("schemas.codes").iterdir()
    if path.name.endswith(".json") and path.name != "errors.json"
}


@pytest.mark.parametrize("name", sorted(LISTS))
def test_every_list_loads_and_says_where_it_is_from(name: str) -> None:
    listed = LISTS[name]()

    assert len(listed) > 0
    assert listed.name == name
    assert len(listed.source) > 10
    date.fromisoformat(listed.as_of)


@pytest.mark.parametrize("name", sorted(LISTS))
def test_a_code_that_is_not_in_a_list_names_field_and_fix_and_not_itself(name: str) -> None:
    listed = LISTS[name]()

    with pytest.raises(RejectedError) as caught:
        listed.of("Quiej Itzel", field="some_code")

    shown = f"{caught.value} {caught.value.fix}"
    assert caught.value.code == "NB-1003"
    assert "some_code" in shown
    assert name in shown
    assert "Itzel" not in shown


def test_no_list_holds_a_code_twice() -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    for path in files("schemas.codes").iterdir():
        if path.name.endswith(".json"):
            json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)


@pytest.mark.parametrize(
    ("listed", "closed"),
    [
        (codes.reasons, ReasonCode),
        (codes.uac_bases, UacBasis),
        (codes.outcomes, OutcomeCode),
        (codes.dispositions, DispositionCode),
        (codes.actions, ActionCode),
    ],
)
def test_the_words_of_a_closed_list_cover_exactly_its_codes(
    listed: Callable[[], CodeList[Any]], closed: type[StrEnum]
) -> None:
    assert set(listed()) == {str(member) for member in closed}


def test_every_court_has_a_zone_and_a_known_fallback_office() -> None:
    for code, city in codes.base_cities().codes.items():
        assert zone_of(city.zone) is not None, code
        assert city.court == (city.fallback_aor is not None), code
        assert city.fallback_aor is None or city.fallback_aor in codes.offices(), code


def test_the_offices_in_the_list_of_courts_are_no_courts() -> None:
    cities = codes.base_cities().codes

    assert {code for code in cities if not cities[code].court} == {
        "BIA", "CIJ", "HDQ", "OIN", "OIT",
    }  # fmt: skip
    assert len(cities) >= 87


@pytest.mark.parametrize(
    ("court", "zone"),
    [("LOS", "America/Los_Angeles"), ("ELP", "America/Denver"), ("PHO", "America/Phoenix"),
     ("MEM", "America/Chicago"), ("AGA", "Pacific/Guam"), ("SAJ", "America/Puerto_Rico"),
     ("LOU", "America/Kentucky/Louisville"), ("HON", "Pacific/Honolulu")],
)  # fmt: skip
def test_a_court_keeps_the_time_of_its_city(court: str, zone: str) -> None:
    assert codes.base_cities().of(court, field="base_city_code").zone == zone


def test_hearing_locations_of_children_belong_to_known_courts() -> None:
    for code, location in codes.hearing_locations().codes.items():
        assert location.docket in {"juvenile", "juvenile_detained", "shelter"}, code
        assert location.base_city is None or location.base_city in codes.base_cities(), code


# Rules of domain: what each adjournment code is for a notice.
def test_only_code_11_can_be_a_missed_hearing_and_a_person_is_asked() -> None:
    treated = {code: entry.treatment for code, entry in codes.adjournments().codes.items()}

    assert len(treated) == 114
    assert {code for code, treatment in treated.items() if treatment is not Treatment.NONE} == {
        "11"
    }
    assert treated["11"] is Treatment.CONFIRM


@pytest.mark.parametrize(
    ("code", "reason"),
    [("10", ReasonCode.NOTICE_DEFECT), ("09", ReasonCode.IN_CUSTODY),
     ("16", ReasonCode.IN_CUSTODY), ("99", ReasonCode.DATA_ENTRY),
     ("46", ReasonCode.HEARING_VACATED), ("33", None), ("11", None)],
)  # fmt: skip
def test_a_trap_says_what_to_tell_when_a_notice_went_out_before(
    code: str, reason: ReasonCode | None
) -> None:
    assert codes.adjournments().of(code, field="ADJ_RSN").if_sent is reason


def test_administrative_closing_for_failure_to_appear_is_sent_at_once() -> None:
    closing = codes.other_completions().of("B", field="OTHER_COMP")

    assert closing.treatment is Treatment.SEND
    assert closing.outcome is HearingOutcome.ADMIN_CLOSED_FTA


def test_a_venue_change_or_transfer_holds_and_sends_nothing() -> None:
    listed = codes.other_completions().codes

    assert {code for code, entry in listed.items() if entry.holds} == {"C", "T"}
    assert {code for code, entry in listed.items() if entry.treatment is Treatment.SEND} == {"B"}


def test_an_order_in_absentia_is_sent_at_once() -> None:
    flags = codes.absentia_flags()

    assert flags.of("Y", field="ABSENTIA").outcome is HearingOutcome.IN_ABSENTIA_ORDER
    assert flags.of("N", field="ABSENTIA").treatment is Treatment.NONE


def test_a_hearing_that_was_not_held_cannot_be_missed() -> None:
    assert [code for code, medium in codes.court_media().codes.items() if not medium.held] == ["H"]


def test_the_code_na_is_a_value_and_never_nothing() -> None:
    assert codes.nationalities().of("NA", field="NAT").name == "NETHERLANDS ANTILLES"
    assert codes.schedule_types().of("NA", field="SCHEDULE_TYPE").meaning == "Naturalization"
    assert codes.case_priorities().of("NA", field="CASEPRIORITY_CODE").scope is Scope.OUT


@pytest.mark.parametrize(
    ("court", "genc"),
    [("ES", "SLV"), ("SP", "ESP"), ("HO", "HND"), ("GT", "GTM"), ("MX", "MEX"), ("EC", "ECU"),
     ("NU", "NIC"), ("NI", "NGA"), ("HA", "HTI"), ("CH", "CHN"), ("CO", "COL"), ("VE", "VEN"),
     ("??", None), ("UN", None)],
)  # fmt: skip
def test_nationalities_are_translated_and_never_passed_through(
    court: str, genc: str | None
) -> None:
    assert codes.nationalities().of(court, field="NAT").genc == genc


@pytest.mark.parametrize(
    ("court", "iso"),
    [("SP", "spa"), ("ENG", "eng"), ("MAM", "mam"), ("QUI", "quc"), ("KEK", "kek"),
     ("IXL", "ixl"), ("ACH", "ach"), ("QAC", "acr"), ("KON", "kjb"), ("???", None)],
)  # fmt: skip
def test_languages_are_translated_where_one_language_is_meant(court: str, iso: str | None) -> None:
    assert codes.languages().of(court, field="LANG").iso == iso


def test_juvenile_flags_are_a_screen() -> None:
    scopes = {entry.code: entry.scope for entry in codes.juveniles().codes.values()}

    assert scopes == {
        "J": Scope.CHECK, "J1": Scope.CHECK, "J2": Scope.IN, "UJ": Scope.IN,
        "NA": Scope.OUT, "AJ": Scope.OUT,
    }  # fmt: skip


def test_there_are_25_areas_and_the_unknown_one() -> None:
    assert len(codes.offices()) == 26
    assert codes.UNKNOWN_OFFICE in codes.offices()


def test_harlingen_is_known_by_both_of_its_codes() -> None:
    assert codes.office_code("HAL") == codes.office_code("har ") == "HAR"

    with pytest.raises(RejectedError):
        codes.office_code("HLG")


@pytest.mark.parametrize(
    ("state", "court", "office", "basis"),
    [
        ("IL", "CHI", "CHI", OfficeBasis.STATE),
        ("il", "MIA", "CHI", OfficeBasis.STATE),
        ("TX", "HLG", "HAR", OfficeBasis.COURT),
        ("CA", "SND", "SND", OfficeBasis.COURT),
        ("NY", "BUF", "BUF", OfficeBasis.COURT),
        ("NY", "MIA", "UNK", OfficeBasis.UNKNOWN),
        (None, "MIA", "MIA", OfficeBasis.COURT),
        ("", "MIA", "MIA", OfficeBasis.COURT),
        ("ZZ", None, "UNK", OfficeBasis.UNKNOWN),
        (None, "BIA", "UNK", OfficeBasis.UNKNOWN),
        (None, None, "UNK", OfficeBasis.UNKNOWN),
    ],
)
def test_a_guessed_office_says_what_it_rests_on(
    state: str | None, court: str | None, office: str, basis: OfficeBasis
) -> None:
    guess = codes.guess_office(state, court)

    assert (guess.aor_code, guess.basis) == (office, basis)


def test_states_name_known_offices() -> None:
    for state in codes.states().codes.values():
        assert (state.aor_code is None) == bool(state.divided)
        assert {state.aor_code, *state.divided} - {None} <= set(codes.offices())


def test_every_detailed_outcome_becomes_a_coarse_one_and_each_coarse_one_is_reachable() -> None:
    reached = {entry.outcome for entry in codes.detailed_outcomes().codes.values()}

    assert reached == set(OutcomeCode)


def test_the_first_policy_has_the_clocks_that_were_suggested() -> None:
    clocks = codes.policy().clocks

    assert codes.policy().version == "P-1"
    assert clocks["receipt"].seconds == 5 * 60
    assert clocks["disposition"].working_days == 1
    assert clocks["action_urgent"].seconds == 24 * 3600
    assert clocks["action_routine"].working_days == 3
    assert clocks["outcome"].seconds == 30 * 24 * 3600
    assert codes.policy().actions_to_ice == (ActionCode.ACTION_STARTED,)
    assert codes.policy().retention_days == {"ice": 3650, "hhs": 3650}
    assert codes.policy().key_days == 730
