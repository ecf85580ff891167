"""How long requests are expected to take."""

import pytest

from skipserve.asking.auto.speeds import Speeds, Work

pytestmark = pytest.mark.fast


def test_nothing_is_expected_before_anything_was_measured() -> None:
    speeds = Speeds()
    assert speeds.seconds("full", Work(100, 10)) is None
    assert (speeds.expected_tokens(4), speeds.expected_tokens(1000)) == (4, 16)


def test_each_phase_has_its_pace() -> None:
    speeds = Speeds()
    speeds.learn("full", Work(100, 10), Work(2.0, 1.0, 0.5), 5)
    assert speeds.seconds("full", Work(50, 20)) == pytest.approx(1.0 + 2.0 + 0.5)
    # Of one that has not run it is the pace of the others.
    assert speeds.seconds("other", Work(50, 0)) == pytest.approx(1.0 + 0.5)


def test_what_came_last_weighs_most() -> None:
    speeds = Speeds()
    for seconds in [*[1.0] * 9, *[3.0] * 30]:
        speeds.learn("full", Work(100, 10), Work(seconds, 0.0), 5)
    assert speeds.seconds("full", Work(100, 10)) == pytest.approx(3.0, abs=0.01)


def test_policies_are_learnt_apart() -> None:
    speeds = Speeds()
    speeds.learn("full", Work(100, 10), Work(1.0, 1.0), 5)
    speeds.learn("skip", Work(100, 10), Work(2.0, 0.0), 5)
    assert speeds.seconds("full", Work(100, 10)) == pytest.approx(2.0)
    # A single token has no second phase to learn from.
    assert speeds.seconds("skip", Work(100, 10)) == pytest.approx(3.0)


def test_answers_are_as_long_as_they_were() -> None:
    speeds = Speeds()
    for _ in range(30):
        speeds.learn("full", Work(1, 1), Work(1, 1), 7)
    assert (speeds.expected_tokens(1000), speeds.expected_tokens(3)) == (7, 3)


def test_what_was_long_ago_says_nothing() -> None:
    now = [0.0]
    speeds = Speeds(lambda: now[0])
    speeds.learn("full", Work(100, 10), Work(9.0, 0.0), 5)
    speeds.learn_bias(1.0, 2.0)
    assert speeds.corrected(1.0) == 2.0
    now[0] = 25.0
    speeds.learn("skip", Work(100, 10), Work(1.0, 0.0), 5)
    now[0] = 40.0
    # Its own pace is forgotten, and that of all together counts.
    assert speeds.seconds("full", Work(100, 10)) == pytest.approx(0.8 * 9.0 + 0.2 * 1.0)
    assert speeds.seconds("skip", Work(100, 10)) == pytest.approx(1.0)
    now[0] = 60.0
    assert speeds.seconds("skip", Work(100, 10)) is None
    assert (speeds.corrected(1.0), speeds.expected_tokens(1000)) == (1.0, 16)


def test_what_is_always_late_is_expected_late() -> None:
    speeds = Speeds()
    for _ in range(30):
        speeds.learn_bias(1.0, 3.0)
    assert speeds.corrected(2.0) == pytest.approx(6.0)
    speeds.learn_bias(1.0, 1e9)
    assert speeds.corrected(1.0) < 5
