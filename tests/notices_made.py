"""Builders of findings, notices and open stores: valid unless the test says otherwise."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import Any

from schemas.codes import Treatment
from schemas.envelope import Attributes, Kind, source_of
from schemas.notice import ReasonCode
from services.exchange.effects import Taken
from services.exchange.outbox import declare_streams
from services.ice.docket.findings import ConfirmCode, CourtKeys, Finding, TakenBack
from services.ice.revisions import Revision
from services.ledger.store import Store

LONG_AGO = date(2024, 3, 4)


@asynccontextmanager
async def opened_store(url: str, agency: str) -> AsyncIterator[Store]:
    """Open a migrated database with its outgoing streams declared."""
    store = await Store.open(url, pool_max=4)
    try:
        async with store.transaction() as tx:
            await declare_streams(
                tx,
                sender=agency,
                recipient="hhs" if agency == "ice" else "ice",
                partitions={"live": 1, "backlog": 1},
            )
        yield store
    finally:
        await store.close()


def a_content(number: int = 1, *, on: date = LONG_AGO, **changes: Any) -> dict[str, Any]:
    """Return what a docket says of one missed hearing; None in `changes` removes a field."""
    content: dict[str, Any] = {
        "a_number": f"A{100_000_000 + number:09d}",
        "name_given": "Ana",
        "name_family": f"Invented {number}",
        "birth_date": "2009-05-03",
        "nationality": "GTM",
        "nationality_raw": "GT",
        "language": "spa",
        "language_raw": "SP",
        "uac_basis": "DHS_DESIGNATION",
        "turns_18_on": "2027-05-03",
        "eoir_case_key": 1_000_000 + number,
        "eoir_proceeding_key": 2_000_000 + number,
        "eoir_schedule_key": 3_000_000 + number,
        "hearing_local": f"{on.isoformat()}T09:00",
        "hearing_zone": "America/Chicago",
        "hearing_type": "MASTER",
        "cal_type_raw": "M",
        "schedule_type_raw": "MR",
        "hearing_medium": "IN_PERSON",
        "base_city_code": "HOU",
        "outcome": "IN_ABSENTIA_ORDER",
        "outcome_at": on.isoformat(),
        "dec_code_raw": "X",
        "absentia_raw": "Y",
        "nta_served": "YES",
        "notice_defect_known": False,
        "counsel_of_record": "NO",
        "custody_flag": "NOT_DETAINED",
        "aor_code": "HOU",
        "reporting_office": "HOU",
        "reporting_role": "BATCH",
        "address_last_known": {
            "line1": "12 Elm Street",
            "city": "Houston",
            "state": "TX",
            "zip": "77001",
            "source": "crosswalk",
            "as_of": "2024-01-01",
        },
        "address_quality": "OK",
        "source_release": "2026-11",
        "source_row_hash": "A" * 43,
        "priority": "ROUTINE",
    }
    content.update(changes)
    return {name: value for name, value in content.items() if value is not None}


def a_finding(
    number: int = 1,
    *,
    on: date = LONG_AGO,
    decision: Treatment = Treatment.SEND,
    aliases: tuple[CourtKeys, ...] = (),
    **changes: Any,
) -> Finding:
    """Return a finding of one missed hearing; children differ by `number`."""
    confirm = decision is Treatment.CONFIRM
    if confirm:
        changes = {"outcome": "MISSED_NO_ORDER", "adj_reason_raw": "11", **changes}
    content = a_content(number, on=on, **changes)
    return Finding(
        a_number=content["a_number"],
        base_city=content["base_city_code"],
        hearing_on=on,
        decision=decision,
        confirm_code=ConfirmCode.WHO_WAS_ABSENT if confirm else None,
        content=content,
        keys=CourtKeys(
            content.get("eoir_case_key", 0),
            content.get("eoir_proceeding_key", 0),
            content.get("eoir_schedule_key", 0),
        ),
        file="tbl_schedule.csv",
        line=number + 1,
        aliases=aliases,
    )


def findings(count: int, **changes: Any) -> list[Finding]:
    """Return findings of as many children."""
    return [a_finding(number, **changes) for number in range(1, count + 1)]


def taken_back(
    number: int = 1,
    *,
    on: date = LONG_AGO,
    code: ReasonCode = ReasonCode.HEARING_VACATED,
) -> TakenBack:
    """Return what a release says that does not have the hearing of `a_finding` as missed."""
    finding = a_finding(number, on=on)
    return TakenBack(
        a_number=finding.a_number,
        base_city=finding.base_city,
        hearing_on=finding.hearing_on,
        code=code,
        file=finding.file,
        line=finding.line,
    )


def recently(days: int = 3) -> date:
    """Return a day that the live lane still takes."""
    return date.today() - timedelta(days=days)  # noqa: DTZ011  (any zone will do)


def by_hand(**changes: Any) -> Mapping[str, Any]:
    """Return what a person types for one missed hearing."""
    written: dict[str, Any] = {
        "a_number": "A-100-000-001",
        "hearing": "2024-03-04T09:00",
        "court": "HOU",
        "office": "HOU",
        "birth_date": "2009-05-03",
        "given_name": "Ana",
        "family_name": "Invented",
    }
    written.update(changes)
    return {name: value for name, value in written.items() if value is not None}


def a_taken(revision: Revision, *, at: datetime) -> Taken:
    """Return a revision as delivery hands it to HHS."""
    notice = revision.notice
    attributes = Attributes(
        id=revision.message_id,
        kind=Kind.FTA,
        version=1,
        source=source_of("ice.noticebus.example", "ice"),
        subject=notice.notice_id,
        time=at,
        sequence=1,
        correlationid=notice.notice_id,
        causationid=revision.supersedes,
        recipient="hhs",
        lane=revision.lane,
        partition=0,
        generation=1,
        revision=notice.revision,
        commitment=b"\x00" * 32,
        dataschema="https://noticebus.example/schemas/fta.v1.json",
    )
    return Taken(
        message_id=revision.message_id,
        kind=Kind.FTA,
        notice_id=notice.notice_id,
        revision=notice.revision,
        body=notice,
        attributes=attributes,
        received_at=at,
    )
