"""How long requests are expected to take."""

from time import monotonic

import pytest

from skipserve.asking.auto.speeds import Speeds, Work

pytestmark = pytest.mark.fast


def test_nothing_is_expected_before_anything_was_measured() -> None:
    speeds = Speeds(monotonic)
    assert speeds.seconds("full", Work(100, 10)) is None
    assert (speeds.expected_tokens(4), speeds.expected_tokens(1000)) == (4, 16)


def test_each_phase_has_its_pace() -> None:
    speeds = Speeds(monotonic)
    speeds.learn("full", Work(100, 10), Work(2.0, 1.0, 0.5), 5)
    assert speeds.seconds("full", Work(50, 20)) == pytest.approx(1.0 + 2.0 + 0.5)
    # Of one that has not run it is the pace of the others.
    assert speeds.seconds("other", Work(50, 0)) == pytest.approx(1.0 + 0.5)


def test_the_pace_is_that_of_whoever_had_the_engine_alone() -> None:
    speeds = Speeds(monotonic)

    def learn(seconds: float, times: int = 1) -> float:
        for _ in range(times):
            speeds.learn("full", Work(100, 10), Work(seconds, 0.0), 5)
        return speeds.seconds("full", Work(100, 10)) or 0.0

    assert learn(2.0) == pytest.approx(2.0)
    # Some that shared it change little, and one that did not all.
    assert learn(9.0, times=3) < 3.1
    assert learn(1.5) == pytest.approx(1.5)
    # The machine is slower for good.
    assert learn(3.0, times=100) == pytest.approx(3.0, abs=0.1)


def test_policies_are_learnt_apart() -> None:
    speeds = Speeds(monotonic)
    speeds.learn("full", Work(100, 10), Work(1.0, 1.0), 5)
    speeds.learn("skip", Work(100, 10), Work(2.0, 0.0), 5)
    assert speeds.seconds("full", Work(100, 10)) == pytest.approx(2.0)
    # A single token has no second phase to learn from.
    assert speeds.seconds("skip", Work(100, 10)) == pytest.approx(3.0)


def test_answers_are_as_long_as_they_were() -> None:
    speeds = Speeds(monotonic)
    for _ in range(30):
        speeds.learn("full", Work(1, 1), Work(1, 1), 7)
    assert (speeds.expected_tokens(1000), speeds.expected_tokens(3)) == (7, 3)


def test_what_was_long_ago_says_nothing() -> None:
    now = [0.0]
    speeds = Speeds(lambda: now[0])
    speeds.learn("full", Work(100, 10), Work(1.0, 0.0), 5)
    now[0] = 500.0
    speeds.learn("skip", Work(100, 10), Work(9.0, 0.0), 5)
    assert speeds.seconds("full", Work(100, 10)) == pytest.approx(1.0)
    now[0] = 700.0
    # Its own pace is forgotten, and that of all together counts.
    assert speeds.seconds("full", Work(100, 10)) == pytest.approx(1.0 + 0.05 * 8.0)
    assert speeds.seconds("skip", Work(100, 10)) == pytest.approx(9.0)
    now[0] = 1200.0
    assert speeds.seconds("skip", Work(100, 10)) is None
    assert speeds.expected_tokens(1000) == 16


def test_one_request_at_a_time_finds_out_whether_all_are_late_still() -> None:
    now = [0.0]
    speeds = Speeds(lambda: now[0])
    taken = []
    for now[0] in (1.0, 5.5, 6.0, 9.0, 11.0, 12.0):
        taken.append(speeds.take_probe())
    assert taken == [False, True, False, False, True, False]
    speeds.learn("full", Work(100, 10), Work(1.0, 0.0), 5)
    now[0] = 16.5
    assert not speeds.take_probe()
