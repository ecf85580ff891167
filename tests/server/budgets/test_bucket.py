"""Tests of a bucket: nobody gets more out than was brought."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.budgets.bucket import Bucket

pytestmark = pytest.mark.fast

SECOND = 10**9


@dataclass
class Clock:
    """A clock that a test moves."""

    now: int = 0

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


def test_it_begins_full_and_fills_steadily() -> None:
    clock = Clock(now=5 * SECOND)
    bucket = Bucket(60, clock)
    assert (bucket.remaining, bucket.reset_seconds) == (60, 0)
    bucket.take(60)
    assert (bucket.remaining, bucket.reset_seconds) == (0, 60)
    assert bucket.seconds_until(5) == 5
    clock.pass_seconds(4.5)
    assert (bucket.remaining, bucket.seconds_until(5)) == (4, 0.5)
    clock.pass_seconds(1000)
    assert bucket.remaining == 60


def test_what_comes_back_never_makes_it_more_than_full() -> None:
    clock = Clock()
    bucket = Bucket(100, clock)
    bucket.take(80)
    clock.pass_seconds(30)
    bucket.take(-80)
    assert bucket.remaining == 100
    bucket.take(1)
    assert bucket.remaining == 99


def test_more_than_was_there_is_paid_back() -> None:
    clock = Clock()
    bucket = Bucket(60, clock)
    bucket.take(90)
    assert (bucket.remaining, bucket.seconds_until(1)) == (0, 31)
    clock.pass_seconds(31)
    assert bucket.remaining == 1


@pytest.mark.parametrize(("per_minute", "remaining"), [(200, 150), (60, 10), (10, 0)])
def test_what_was_used_stays_used_under_another_limit(per_minute: int, remaining: int) -> None:
    bucket = Bucket(100, Clock())
    bucket.take(50)
    bucket.resize(per_minute)
    assert bucket.remaining == remaining


@given(
    per_minute=st.integers(1, 10**18),
    steps=st.lists(
        st.tuples(st.floats(0, 90), st.floats(0, 1.2), st.floats(0, 1), st.integers(0, 3)),
        max_size=40,
    ),
)
def test_nobody_overdraws_it(per_minute: int, steps: list[tuple[float, float, float, int]]) -> None:
    """Requests reserve, end in any order and use less: what all have used was brought by then."""
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    used, under_way = 0, list[tuple[int, int]]()
    for seconds, share, used_share, num_ended in steps:
        clock.pass_seconds(seconds)
        for _ in range(min(num_ended, len(under_way))):
            reserved, took = under_way.pop(0)
            bucket.take(took - reserved)
        amount = int(per_minute * share)
        if bucket.seconds_until(amount) == 0:
            bucket.take(amount)
            under_way.append((amount, int(amount * used_share)))
            used += under_way[-1][1]
        assert bucket.remaining >= 0
        assert used * 60 * SECOND <= per_minute * (60 * SECOND + clock.now)
