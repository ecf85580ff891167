"""Tests of who gets in where all is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.api.shares import Shares

pytestmark = pytest.mark.fast


def test_one_owner_alone_gets_nothing_beyond_what_there_is() -> None:
    shares = Shares(10, 20)
    for _ in range(12):
        assert not shares.is_below("a", 1)
        shares.take("a", 1)
    assert shares.held_by("a") == 12


def test_whoever_holds_less_than_a_share_gets_in() -> None:
    shares = Shares(10, 20)
    shares.take("a", 10)
    assert shares.is_below("b", 5)
    assert not shares.is_below("b", 6)
    shares.take("b", 3)
    assert not shares.is_below("a", 1)
    assert shares.is_below("b", 2)
    assert shares.is_below("c", 3)
    assert not shares.is_below("c", 4)


def test_together_they_get_no_more_than_so_much() -> None:
    shares = Shares(10, 12)
    shares.take("a", 10)
    shares.take("b", 2)
    assert not shares.is_below("c", 1)
    shares.give_back("a", 1)
    assert shares.is_below("c", 1)


def test_whoever_holds_nothing_is_nobody() -> None:
    shares = Shares(10, 20)
    shares.take("a", 10)
    shares.take("b", 1)
    shares.give_back("b", 1)
    assert shares.held_by("b") == 0
    assert not shares.is_below("a", 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=300))
def test_a_newcomer_finds_room_whatever_few_others_do(steps: list[tuple[int, bool]]) -> None:
    """Ten who take what they get: an eleventh gets something as soon as one of them lets go."""
    total, most = 100, 200
    shares, held = Shares(total, most), [0] * 10
    for owner, takes in steps:
        if takes and (sum(held) < total or shares.is_below(str(owner), 1)):
            shares.take(str(owner), 1)
            held[owner] += 1
        elif not takes and held[owner]:
            shares.give_back(str(owner), 1)
            held[owner] -= 1
        assert sum(held) <= most
        assert [shares.held_by(str(owner)) for owner in range(10)] == held
        if total <= sum(held) < most:
            assert shares.is_below("new", 1) or not any(held)
