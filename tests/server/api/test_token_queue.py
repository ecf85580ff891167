"""Tests of the queue of prompt tokens: its end, and how long it says it is."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.api.token_queue import MAX_RETRY_SECONDS, TokenQueue, retry_seconds

pytestmark = pytest.mark.fast


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_room_ends_at_the_limit() -> None:
    queue = TokenQueue(100)
    assert queue.has_room(101)
    queue.add(60)
    assert queue.has_room(40)
    assert not queue.has_room(41)
    queue.remove(60, is_served=True)
    assert queue.has_room(500)


def test_the_pace_is_that_of_the_time_in_which_there_was_a_queue() -> None:
    clock = Clock()
    queue = TokenQueue(10_000, clock)
    assert queue.seconds_to_empty == 0
    queue.add(1000)
    clock.now += 2.0
    queue.remove(1000, is_served=True)
    # Nobody waits for an hour: that does not make the server slow.
    clock.now += 3600.0
    queue.add(5000)
    assert queue.seconds_to_empty == 10


def test_what_was_given_up_was_not_served() -> None:
    clock = Clock()
    queue = TokenQueue(10_000, clock)
    queue.add(1000)
    queue.add(1000)
    clock.now += 4.0
    queue.remove(1000, is_served=True)
    queue.remove(1000, is_served=False)
    queue.add(1000)
    assert queue.seconds_to_empty == 4


def test_there_is_room_for_more_of_the_usual_size() -> None:
    queue = TokenQueue(100)
    assert queue.has_room_for_more(1000)
    queue.add(10)
    queue.add(30)
    assert queue.has_room_for_more(3)
    assert not queue.has_room_for_more(4)
    queue.remove(30, is_served=False)
    assert queue.has_room_for_more(9)
    assert not queue.has_room_for_more(10)


@pytest.mark.parametrize(("seconds", "first", "last"), [(0.0, 1, 2), (10.0, 10, 20), (1e6, 30, 60)])
def test_those_turned_away_come_back_one_after_the_other(
    seconds: float, first: int, last: int
) -> None:
    told = {retry_seconds(seconds, partial(float, drawn / 100)) for drawn in range(101)}
    assert told == set(range(first, last + 1))


def test_old_times_are_forgotten() -> None:
    clock = Clock()
    queue = TokenQueue(10_000, clock)
    for seconds in (*[10.0] * 5, *[0.1] * 300):
        queue.add(1000)
        clock.now += seconds
        queue.remove(1000, is_served=True)
    queue.add(10_000)
    assert queue.seconds_to_empty <= 3


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 10**6), st.booleans())))
def test_the_estimate_is_whole_seconds_within_bounds(
    served: list[tuple[int, float, bool]],
) -> None:
    clock = Clock()
    queue = TokenQueue(1, clock)
    for num_tokens, seconds, is_served in served:
        queue.add(num_tokens)
        clock.now += seconds
        assert retry_seconds(queue.seconds_to_empty) in range(1, MAX_RETRY_SECONDS + 1)
        queue.remove(num_tokens, is_served=is_served)
    assert queue.num_tokens == 0
