"""What is wrong with how a group is read, in words: ended, stuck, or slow."""

from services.bus import ConsumerStatus, GroupStatus
from services.exchange import troubles


def group(*consumers: ConsumerStatus) -> GroupStatus:
    pending = sum(each.pending for each in consumers)
    return GroupStatus(
        stream="{ice.hhs.live.0}:out",
        group="hhs",
        length=9,
        lag=0,
        pending=pending,
        oldest_pending_id="1-0" if pending else None,
        last_delivered_id="9-0",
        consumers=consumers,
        oldest_idle_seconds=40.0 if pending else None,
        oldest_delivered=1 if pending else None,
    )


def told(group: GroupStatus, *, living: set[str], ours: bool = True) -> list[str]:
    return troubles.of_group(group, living=living, ours=ours, claim_idle_seconds=30)


def test_a_process_that_lives_and_asks_for_nothing_is_stuck() -> None:
    hanging = group(ConsumerStatus("hhs-0", 3, 40.0), ConsumerStatus("hhs-1", 0, 0.2))

    assert told(hanging, living={"hhs-0", "hhs-1"}) == [
        "consumer hhs-0 is stuck: its process lives and asked for nothing for 40 s"
    ]


def test_a_process_that_ended_a_moment_ago_does_not_read() -> None:
    left = group(ConsumerStatus("hhs-0", 3, 0.2))

    assert told(left, living=set()) == [
        "nobody reads: no process that does lives",
        "consumer hhs-0 has ended: it holds 3 entries and asked for nothing for 0 s;"
        " they wait for a reader",
    ]


def test_of_the_other_agency_is_said_what_its_silence_tells_and_no_more() -> None:
    left = group(ConsumerStatus("hhs-0", 3, 40.0))

    assert told(left, living=set(), ours=False) == [
        "nobody reads: the last one asked 40 s ago",
        "consumer hhs-0 is stuck or ended: it holds 3 entries and asked for nothing for 40 s;"
        " they wait for a reader",
    ]


def test_nothing_is_wrong_where_a_living_process_asks() -> None:
    assert told(group(ConsumerStatus("hhs-0", 3, 0.2)), living={"hhs-0"}) == []
