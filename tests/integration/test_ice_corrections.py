"""Corrections and withdrawals: what they change, what they answer to, and a file full of them."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from schemas.errors import ConflictError, NotFoundError, RejectedError
from services.ice import notices
from services.ice.docket.rejects import Reject, write_rejects
from services.ice.notices import bulk
from services.ice.obligations import open_findings
from services.ledger.store import Store
from services.replay.shadow import shadow
from tests.notices_made import a_finding, by_hand, opened_store


@pytest.fixture
async def ice(database: Callable[[str], str]) -> AsyncIterator[Store]:
    async with opened_store(database("ice"), "ice") as store:
        yield store


async def rows(store: Store, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    async with store.transaction() as tx:
        return await (await tx.execute(query, arguments)).fetchall()


async def sent(ice: Store, number: int = 1, **changes: Any) -> UUID:
    written = by_hand(a_number=f"A-100-000-{number:03d}", **changes)
    return (await notices.send(ice, written, actor="officer")).item.notice_id


async def correct(ice: Store, notice_id: UUID, **written: Any) -> notices.Correction:
    return await notices.correct(ice, notice_id, written, reason="DATA_ENTRY", actor="officer")


async def body(ice: Store, message_id: UUID | None) -> dict[str, Any]:
    [(text,)] = await rows(ice, "SELECT body FROM payload WHERE message_id = %s", message_id)
    said: dict[str, Any] = json.loads(text)
    return said


async def follows_from_records(ice: Store) -> None:
    found = await shadow(ice, "ice")
    assert not found.differing, found.differences


async def test_a_correction_says_everything_and_names_what_it_changes(ice: Store) -> None:
    notice_id = await sent(ice)
    [(first,)] = await rows(ice, "SELECT message_id FROM outbox")

    corrected = await correct(ice, notice_id, birth_date="2012-05-03", office="MIA")

    said = await body(ice, corrected.message_id)
    assert {change.field for change in corrected.changes} == {
        "aor_code", "birth_date", "priority", "reporting_office", "turns_18_on",
    }  # fmt: skip
    assert (said["notice_kind"], said["revision"]) == ("CORRECTION", 2)
    assert (said["reason_code"], said["supersedes"]) == ("DATA_ENTRY", str(first))
    assert (said["turns_18_on"], said["priority"]) == ("2030-05-03", "URGENT")
    assert said["name_given"] == "Ana"
    assert (corrected.item.office, corrected.item.kind) == ("MIA", "CORRECTION")
    outbox = "SELECT causation_id, revision FROM outbox ORDER BY position OFFSET 1"
    assert await rows(ice, outbox) == [(first, 2)]
    record = "SELECT record FROM record WHERE action = 'notice.corrected'"
    [(text,)] = await rows(ice, record)
    assert json.loads(text)["reason"] == "DATA_ENTRY"
    assert "2012" not in text.decode()
    await follows_from_records(ice)


async def test_saying_what_is_said_already_sends_nothing(ice: Store) -> None:
    notice_id = await sent(ice)
    await correct(ice, notice_id, birth_date="2012-05-03")

    again = await correct(ice, notice_id, birth_date="2012-05-03")

    assert (again.already, again.message_id) == (True, None)
    assert await rows(ice, "SELECT count(*) FROM outbox") == [(2,)]


async def test_what_is_proposed_is_only_looked_at(ice: Store) -> None:
    notice_id = await sent(ice)

    proposed = await notices.propose(
        ice, notice_id, {"outcome": "IN_ABSENTIA_ORDER"}, reason="OTHER", actor="officer"
    )

    assert [(c.field, c.before, c.after, c.personal) for c in proposed.changes] == [
        ("outcome", "MISSED_NO_ORDER", "IN_ABSENTIA_ORDER", False)
    ]
    assert await rows(ice, "SELECT count(*) FROM outbox") == [(1,)]
    revealed = "SELECT count(*) FROM record WHERE action = 'notice.revealed'"
    assert await rows(ice, revealed) == [(0,)]
    await notices.propose(
        ice, notice_id, {"given_name": "Eva"}, reason="OTHER", actor="officer", reveal=True
    )
    assert await rows(ice, revealed) == [(1,)]


async def test_null_takes_a_field_back_and_an_urgent_child_stays_urgent(ice: Store) -> None:
    await open_findings(ice, [a_finding(1)], release="2026-11", actor="officer")
    later = a_finding(1, on=a_finding().hearing_on.replace(month=5))
    await open_findings(ice, [later], release="2026-11", actor="officer")
    [(notice_id,)] = await rows(
        ice, "SELECT notice_id FROM obligation ORDER BY hearing_on DESC LIMIT 1"
    )

    corrected = await correct(ice, notice_id, nationality=None, birth_date="2008-05-03")

    said = await body(ice, corrected.message_id)
    assert "nationality" not in said
    assert (said["prior_missed"], said["priority"]) == (1, "URGENT")
    assert said["eoir_case_key"] == 1_000_001
    await follows_from_records(ice)


async def test_a_notice_of_the_wrong_child_can_be_put_right_unless_another_tells_of_it(
    ice: Store,
) -> None:
    notice_id, other = await sent(ice, 1), await sent(ice, 2)

    with pytest.raises(ConflictError) as caught:
        await notices.correct(
            ice, notice_id, {"a_number": "A100000002"}, reason="WRONG_CHILD", actor="officer"
        )
    corrected = await notices.correct(
        ice, notice_id, {"a_number": "A100000003"}, reason="WRONG_CHILD", actor="officer"
    )

    assert caught.value.code == "NB-1051"
    assert str(other) in str(caught.value)
    assert corrected.item.child == "A***-***-003"
    refused = "SELECT count(*) FROM record WHERE action = 'notice.corrected'"
    assert await rows(ice, refused) == [(2,)]
    await follows_from_records(ice)


async def test_a_correction_answers_to_the_message_that_was_refused(ice: Store) -> None:
    notice_id = await sent(ice)
    [(first,)] = await rows(ice, "SELECT message_id FROM outbox")
    number = (
        "INSERT INTO sent (stream, generation, sequence, message_id, kind, notice_id, revision,"
        " envelope_hash, sequenced_at, answer)"
        " VALUES ('{ice.hhs.live.0}:out', 1, %s, %s, 'fta', %s, %s, '', now(), %s) RETURNING 1"
    )
    await rows(ice, number, 1, first, notice_id, 1, "refusal")
    second = await correct(ice, notice_id, birth_date="2012-05-03")
    assert second.cause == first
    # The correction is refused as well: the next one answers to it.
    await rows(ice, number, 2, second.message_id, notice_id, 2, "refusal")

    third = await correct(ice, notice_id, birth_date="2012-05-04")

    assert third.cause == second.message_id
    await rows(ice, number, 3, third.message_id, notice_id, 3, "receipt")
    fourth = await notices.withdraw(ice, notice_id, reason="DUPLICATE", actor="officer")
    outbox = "SELECT causation_id FROM outbox WHERE message_id = %s"
    assert await rows(ice, outbox, fourth.message_id) == [(third.message_id,)]


@pytest.mark.parametrize(
    ("written", "reason", "code"),
    [
        ({"birth_date": "2012-05-03"}, "APPEARED_LATE", "NB-1052"),
        ({"birth_date": "2012-05-03"}, "BORED", "NB-1052"),
        ({"birthdate": "2012-05-03"}, "OTHER", "NB-1071"),
        ({"birth_date": "2012-31-03"}, "OTHER", "NB-1074"),
        ({"birth_date": None}, "OTHER", "NB-1070"),
        ({"hearing": "2999-01-01T09:00"}, "OTHER", "NB-1073"),
        ({"office": "XXX"}, "OTHER", "NB-1003"),
        ({"eoir_case_key": 7}, "OTHER", "NB-1055"),
        ({"outcome": "NONE"}, "OTHER", "NB-1000"),
    ],
)
async def test_what_cannot_be_corrected_says_why_and_sends_nothing(
    ice: Store, written: dict[str, Any], reason: str, code: str
) -> None:
    notice_id = await sent(ice)

    with pytest.raises(RejectedError) as caught:
        await notices.correct(ice, notice_id, written, reason=reason, actor="officer")

    assert caught.value.code == code
    assert await rows(ice, "SELECT count(*) FROM outbox") == [(1,)]
    refused = "SELECT record FROM record WHERE action = 'notice.corrected'"
    assert [json.loads(row[0])["result"] for row in await rows(ice, refused)] == ["refused"]


async def test_only_what_was_sent_and_stands_is_corrected_or_withdrawn(ice: Store) -> None:
    waiting = a_finding(4, decision=a_finding().decision.CONFIRM)
    await open_findings(ice, [waiting], release="2026-11", actor="officer")
    [(never_sent,)] = await rows(ice, "SELECT notice_id FROM obligation")
    gone = await sent(ice, 1)
    first = await notices.withdraw(ice, gone, reason="DUPLICATE", actor="officer")
    again = await notices.withdraw(ice, gone, reason="DUPLICATE", actor="officer")

    for notice_id in (never_sent, gone):
        with pytest.raises(ConflictError, match="NB-1050"):
            await correct(ice, notice_id, birth_date="2012-05-03")
    with pytest.raises(ConflictError, match="NB-1050"):
        await notices.withdraw(ice, never_sent, reason="DUPLICATE", actor="officer")
    with pytest.raises(NotFoundError, match="NB-1076"):
        await correct(ice, uuid7(), birth_date="2012-05-03")
    with pytest.raises(RejectedError, match="NB-1078"):
        await notices.withdraw(ice, gone, reason="BORED", actor="officer")
    assert (first.already, again.already, first.item.state) == (False, True, "withdrawn")
    assert (await body(ice, first.message_id))["notice_kind"] == "WITHDRAWAL"
    await follows_from_records(ice)


async def test_a_wrong_reason_of_a_dismissal_lists_the_right_ones(ice: Store) -> None:
    with pytest.raises(RejectedError) as caught:
        await notices.dismiss(ice, await sent(ice), reason="BORED", actor="officer")

    assert caught.value.code == "NB-1056"
    assert "HEARING_VACATED" in caught.value.fix


async def test_a_file_of_corrections_sends_the_good_rows_once_and_names_the_bad_ones(
    ice: Store, tmp_path: Path
) -> None:
    good, same, bad = await sent(ice, 1), await sent(ice, 2), await sent(ice, 3)
    file = tmp_path / "corrections.csv"
    file.write_text(
        "notice,reason,birth_date,notice_defect_known,family_name\n"
        f"{good},DATA_ENTRY,2012-05-03,yes,\n"
        f"{same},OTHER,2009-05-03,,\n"
        f"{bad},OTHER,2012-31-31,,Quiej\n"
        f"{bad},OTHER,2012-31-31,,\n"
        f"{uuid7()},OTHER,2012-05-03,,\n"
        f"{good},BORED,2012-05-03,maybe,\n"
        "\n"
        f"{good},too few\n",
        encoding="utf-8",
    )

    parsed, unreadable = bulk.read(file, reason=None)
    looked = await bulk.look(ice, file, parsed, actor="officer")
    assert await rows(ice, "SELECT count(*) FROM outbox") == [(3,)]
    failed: list[Reject] = []
    corrected = await bulk.apply(ice, file, looked, actor="officer", rejected=failed.append)

    assert [each.outcome for each in looked] == ["change", "already", "rejected", "rejected"]
    assert [each.item.notice_id for each in corrected] == [good]
    rejects = [*unreadable, *(each.reject for each in looked if each.reject), *failed]
    assert sorted((each.line, each.code) for each in rejects) == [
        (4, "NB-1074"), (5, "NB-1054"), (6, "NB-7012"), (7, "NB-1054"), (9, "NB-1054"),
    ]  # fmt: skip
    write_rejects(tmp_path / "rejects.csv", sorted(rejects))
    text = (tmp_path / "rejects.csv").read_text(encoding="utf-8")
    assert "birth_date" in text
    assert not any(value in text for value in ("2012", "Quiej", str(bad)))
    # A second run finds everything said.
    again = await bulk.look(ice, file, parsed, actor="officer")
    assert [each.outcome for each in again][:2] == ["already", "already"]
    assert await bulk.apply(ice, file, again, actor="officer", rejected=failed.append) == []


@pytest.mark.parametrize(
    "text",
    [
        "birth_date\n2012-05-03\n",
        "notice,birth_date\n0193,2012-05-03\n",
        "notice,reason,reason\n0193,OTHER,OTHER\n",
        "notice,reason,address_last_known\n0193,OTHER,x\n",
        'notice,reason\n0193,"OTHER\n',
        "",
    ],
)
def test_a_file_that_cannot_be_read_is_not_read_at_all(tmp_path: Path, text: str) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(RejectedError, match="NB-1053"):
        bulk.read(file, reason=None)


def test_a_heading_that_is_no_field_is_named(tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    file.write_text("notice,reason,birthdate\n", encoding="utf-8")

    with pytest.raises(RejectedError, match="NB-1071"):
        bulk.read(file, reason=None)
    with pytest.raises(RejectedError, match="NB-1053"):
        bulk.read(tmp_path / "absent.csv", reason=None)
