"""The notice: who the child is, which hearing it was, and what must hold together."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import body_of, make_body
from schemas.errors import RejectedError
from schemas.fields import clean, is_clean
from schemas.notice import Notice, NoticeKind, mask_a_number, normalise_a_number

NOTICE_ID = UUID("019c0de0-1111-7222-8333-000000000001")
MESSAGE_ID = UUID("019c0de0-1111-7222-8333-0000000000a1")


def a_notice(**changes: Any) -> Notice:
    fields: dict[str, Any] = {
        "notice_id": NOTICE_ID,
        "revision": 1,
        "notice_kind": "NEW",
        "a_number": "A012345417",
        "name_given": "Itzel",
        "name_family": "Quiej",
        "birth_date": "2012-04-17",
        "uac_basis": "DHS_DESIGNATION",
        "hearing_local": "2026-11-20T08:30",
        "hearing_zone": "America/Chicago",
        "hearing_type": "MASTER",
        "hearing_medium": "IN_PERSON",
        "base_city_code": "CHI",
        "outcome": "MISSED_NO_ORDER",
        "outcome_at": date(2026, 11, 20),
        "nta_served": "YES",
        "notice_defect_known": False,
        "counsel_of_record": "UNKNOWN",
        "custody_flag": "NOT_DETAINED",
        "aor_code": "CHI",
        "reporting_office": "CHI",
        "reporting_role": "BATCH",
        "address_quality": "BLANK",
        "detected_at": datetime(2026, 11, 23, 21, 4, 5, 123456, UTC),
        "source_release": "2026-11",
        "source_row_hash": "A" * 43,
        "priority": "ROUTINE",
    }
    return make_body(
        Notice,
        {name: value for name, value in (fields | changes).items() if value is not None},
    )


@pytest.mark.parametrize(
    "written",
    ["A012345417", "a012345417", "A-012-345-417", " 12345417 ", "A 12 345 417", "A12345417",
     "012\u2011345\u2011417", "A\u00a0012 345 417"],
)  # fmt: skip
def test_an_a_number_is_read_however_people_write_it(written: str) -> None:
    assert normalise_a_number(written) == "A012345417"


def test_seven_digits_are_padded_with_zeros() -> None:
    assert normalise_a_number("A1234567") == "A001234567"


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("", "it is empty"),
        ("A-", "it is empty"),
        ("123456", "it has fewer than 7 digits"),
        ("A0123454170", "it has more than 9 digits"),
        ("A000000000", "it is all zeros"),
        ("0000000", "it is all zeros"),
        ("A01234541X", "it holds more than A and digits"),
        ("AA12345417", "it holds more than A and digits"),
        ("\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668", "it holds more than A and digits"),
        ("QUIEJ ITZEL", "it holds more than A and digits"),
    ],
)
def test_what_is_no_a_number_is_refused_without_showing_it(written: str, rule: str) -> None:
    with pytest.raises(RejectedError) as caught:
        normalise_a_number(written)

    assert caught.value.code == "NB-1001"
    assert rule in caught.value.sentence
    assert not written.strip("A-") or written not in f"{caught.value} {caught.value.fix}"


@settings(deadline=None)
@given(st.text(max_size=16))
def test_reading_an_a_number_gives_ten_characters_or_one_error(written: str) -> None:
    try:
        number = normalise_a_number(written)
    except RejectedError:
        return
    assert len(number) == 10
    assert normalise_a_number(number) == number


def test_a_masked_a_number_shows_three_digits() -> None:
    assert mask_a_number("A012345417") == "A***-***-417"


def test_the_hearing_is_an_instant_in_the_zone_of_the_court() -> None:
    notice = a_notice()

    assert notice.hearing_at == datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
    assert notice.hearing_on == date(2026, 11, 20)


def test_a_hearing_without_a_time_is_told_by_its_day_alone() -> None:
    notice = a_notice(hearing_local="2026-11-20")

    assert notice.hearing_on == date(2026, 11, 20)
    assert notice.hearing_at.utcoffset() == timedelta(hours=-6)
    assert b'"hearing_local":"2026-11-20"' in body_of(notice)


@pytest.mark.parametrize("clock", ["2026-11-01T01:30", "2026-03-08T02:30"])
def test_an_hour_that_a_clock_change_repeats_or_skips_still_has_an_instant(clock: str) -> None:
    assert a_notice(hearing_local=clock).hearing_at.utcoffset() is not None


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    east = timezone(timedelta(hours=-5))

    notice = a_notice(detected_at=datetime(2026, 11, 23, 16, 4, 5, 7, east))

    assert b'"detected_at":"2026-11-23T21:04:05.000007Z"' in body_of(notice)


def test_fields_without_a_value_are_left_out_of_the_bytes() -> None:
    assert b"null" not in body_of(a_notice())
    assert b"supersedes" not in body_of(a_notice())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"a_number": "A000000000"}, "a_number"),
        ({"a_number": "A12345417"}, "a_number"),
        ({"name_given": None, "name_family": None}, "name_family"),
        ({"name_given": "Itzel\x07"}, "name_given"),
        ({"name_given": "I\u0301tzel\u202e"}, "name_given"),
        ({"name_given": "e\u0301"}, "name_given"),
        ({"name_family": "q" * 65}, "name_family"),
        ({"birth_date": "2012-13"}, "birth_date"),
        ({"birth_date": "2012-02-30"}, "birth_date"),
        ({"birth_date": "4/2012"}, "birth_date"),
        ({"hearing_local": "2026-11-20T25:00"}, "hearing_local"),
        ({"hearing_local": "2026-02-30T09:00"}, "hearing_local"),
        ({"hearing_zone": "Chicago"}, "hearing_zone"),
        ({"hearing_zone": "America/Nowhere"}, "hearing_zone"),
        ({"hearing_zone": "America/Argentina"}, "hearing_zone"),
        ({"hearing_zone": "../../etc/passwd"}, "hearing_zone"),
        ({"revision": 2}, "revision"),
        ({"revision": 0}, "revision"),
        ({"supersedes": MESSAGE_ID}, "supersedes"),
        ({"reason_code": "OTHER"}, "reason_code"),
        ({"notice_kind": "CORRECTION", "revision": 2, "reason_code": "OTHER"}, "supersedes"),
        ({"notice_kind": "WITHDRAWAL", "revision": 2, "supersedes": MESSAGE_ID}, "reason_code"),
        ({"next_hearing_local": "2027-01-12"}, "next_hearing_zone"),
        ({"nta_served": "UNKNOWN", "nta_method": "MAIL"}, "nta_method"),
        ({"address_quality": "OK"}, "address_quality"),
        ({"address_last_known": {"line1": "1 Invented St", "source": "x"}}, "address_quality"),
        ({"address_last_known": {"line1": " 1 Invented St", "source": "x"}},
         "address_last_known.line1"),
        ({"adj_reason_raw": "11111"}, "adj_reason_raw"),
        ({"detected_at": datetime(2026, 11, 23)}, "detected_at"),  # noqa: DTZ001
        ({"source_row_hash": "A" * 42 + "B"}, "source_row_hash"),
        ({"prior_missed": 2**53}, "prior_missed"),
        ({"sponsor_phone": "555-0100"}, "*"),
    ],
)  # fmt: skip
def test_what_does_not_hold_together_is_refused_by_the_name_of_its_field(
    changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        a_notice(**changes)

    assert caught.value.code == "NB-1000"
    assert caught.value.where["field"] == field
    shown = f"{caught.value} {caught.value.fix}"
    assert not any(
        value in shown for value in changes.values() if isinstance(value, str) and len(value) > 9
    )


def test_later_revisions_name_the_message_before_and_the_reason() -> None:
    update = a_notice(
        notice_kind="STATUS_UPDATE",
        revision=2,
        supersedes=MESSAGE_ID,
        reason_code="KEYS_ATTACHED",
        eoir_schedule_key=41234567,
    )

    assert update.notice_kind is NoticeKind.STATUS_UPDATE


@settings(deadline=None)
@given(st.text(max_size=80))
def test_cleaned_text_may_travel(text: str) -> None:
    assert is_clean(clean(text))


def test_cleaning_keeps_what_people_wrote() -> None:
    assert clean("  Mari\u0301a\tJosé \u202e Ñamandú\x00 ") == "María José Ñamandú"
