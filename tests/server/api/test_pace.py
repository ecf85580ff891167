"""Tests of how many are let by in a time, and how long the others wait."""

import pytest

from skipserve.api.pace import MOST_SECONDS, OwnTime, Pace

pytestmark = pytest.mark.fast


class Clock:
    """A time that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_few_at_once_do_not_wait_and_the_others_take_turns() -> None:
    clock = Clock()
    pace = Pace(0.1, clock)
    clock.now += 60
    # A second of the share is kept: so much for 100 that cost a millisecond.
    waits = [pace.wait_seconds(0.001) for _ in range(200)]
    assert waits[:100] == [0.0] * 100
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(1.0, abs=0.06)


def test_turns_fall_together() -> None:
    pace = Pace(0.1, Clock())
    turns = {round(1000 + pace.wait_seconds(0.001), 6) for _ in range(100)}
    assert len(turns) <= 21


def test_nobody_waits_without_end() -> None:
    pace = Pace(0.1, Clock())
    assert max(pace.wait_seconds(0.1) for _ in range(1000)) <= MOST_SECONDS + 0.05


def test_whoever_comes_slowly_never_waits() -> None:
    clock = Clock()
    pace = Pace(0.1, clock)
    for _ in range(100):
        assert pace.wait_seconds(0.001) == 0
        clock.now += 0.011


def test_our_time_stands_while_the_processor_is_others() -> None:
    clock, waited = Clock(), Clock()
    waited.now = 0.0
    own = OwnTime(clock, waited)
    assert own() == 1000
    clock.now, waited.now = 1010.0, 8.0
    assert own() == 1002
    # It is read once a tick, and never goes back.
    clock.now, waited.now = 1010.01, 8.0
    assert own() == 1002
    clock.now, waited.now = 1011.0, 9.5
    assert own() == 1002


def test_the_system_tells_how_long_we_waited() -> None:
    own = OwnTime(lambda: 1e9)
    assert 0 < own() <= 1e9
