"""The arithmetic of arrivals: what is missing is known exactly, whatever the order."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.exchange.gaps import arrive, holes, ranges_of


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


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ([], [(3, 7)]),
        ([3], [(4, 7)]),
        ([7], [(3, 6)]),
        ([5, 4], [(3, 3), (6, 7)]),
        ([3, 4, 5, 6, 7], []),
        ([1, 2, 8, 9], [(3, 7)]),
        ([5, 5], [(3, 4), (6, 7)]),
    ],
)
def test_holes_are_what_a_range_lacks(there: list[int], missing: list[tuple[int, int]]) -> None:
    assert holes(3, 7, there) == missing


@given(st.sets(st.integers(min_value=1, max_value=40)))
def test_ranges_hold_exactly_the_sequences_and_touch_nowhere(sequences: set[int]) -> None:
    ranges = ranges_of(sequences)

    assert {n for first, last in ranges for n in range(first, last + 1)} == sequences
    assert all(one[1] + 1 < other[0] for one, other in pairwise(ranges))
    assert holes(1, 40, sequences) == ranges_of(set(range(1, 41)) - sequences)
