"""The arithmetic of arrivals: what is missing is known exactly, whatever the order."""

from hypothesis import given
from hypothesis import strategies as st

from services.exchange.gaps import arrive


def test_consecutive_sequences_open_no_gap() -> None:
    arrival = arrive(3, [], [4, 5, 6])

    assert (arrival.highest, arrival.closed, arrival.opened) == (6, [], [])


def test_a_skipped_range_opens_a_gap() -> None:
    arrival = arrive(3, [], [7])

    assert (arrival.highest, arrival.opened) == (7, [(4, 6)])


def test_a_late_sequence_splits_its_gap() -> None:
    arrival = arrive(9, [(4, 8)], [6])

    assert arrival.closed == [(4, 8)]
    assert arrival.opened == [(4, 5), (7, 8)]


def test_the_last_missing_sequence_closes_its_gap() -> None:
    arrival = arrive(9, [(2, 2), (5, 5)], [5])

    assert (arrival.closed, arrival.opened) == ([(5, 5)], [])


def test_a_sequence_that_came_before_changes_nothing() -> None:
    arrival = arrive(9, [(2, 3)], [1, 9, 4])

    assert (arrival.highest, arrival.closed, arrival.opened) == (9, [], [])


@given(
    st.lists(st.lists(st.integers(min_value=1, max_value=60), max_size=12), max_size=8),
)
def test_gaps_are_exactly_what_has_not_arrived(batches: list[list[int]]) -> None:
    highest = 0
    gaps: list[tuple[int, int]] = []
    seen: set[int] = set()

    for batch in batches:
        arrival = arrive(highest, gaps, batch)
        assert set(arrival.closed) <= set(gaps)
        gaps = sorted((set(gaps) - set(arrival.closed)) | set(arrival.opened))
        highest = arrival.highest
        seen |= set(batch)

    missing = {n for first, last in gaps for n in range(first, last + 1)}
    assert highest == max(seen, default=0)
    assert missing == set(range(1, highest + 1)) - seen
