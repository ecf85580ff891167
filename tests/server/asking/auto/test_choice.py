"""What any choice of a policy keeps to, over all candidates, needs and loads."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.asking.auto.choice import (
    Candidate,
    Needs,
    Picked,
    PressureBand,
    Reason,
    nearest,
    pick,
)

pytestmark = pytest.mark.fast

SHARES = st.integers(0, 20).map(lambda it: it / 20)
COSTS = st.integers(1, 9)
SECONDS = st.none() | st.integers(1, 9).map(float)
CANDIDATES = st.lists(
    st.builds(Candidate, st.text(), SHARES, COSTS, COSTS, SECONDS),
    min_size=1,
    max_size=6,
).map(lambda found: [replace(it, name=f"policy-{place}") for place, it in enumerate(found)])
LIMITS = st.none() | st.integers(1, 9).map(float)


def needs_of(bounds: tuple[float, float], limit: float | None = None) -> Needs:
    return Needs(max(bounds), min(bounds), limit)


NEEDS = st.builds(needs_of, st.tuples(SHARES, SHARES), LIMITS)
KEPT = st.none() | st.integers(0, 6).map(lambda it: f"policy-{it}")

FULL = Candidate("full", 1.0, 100, 100)
GOOD = Candidate("good", 0.98, 80, 80)
CHEAP = Candidate("cheap", 0.95, 60, 60)
ALL = [FULL, GOOD, CHEAP]


def chosen(picked: Picked | None) -> tuple[str, Reason]:
    assert picked is not None
    return picked.candidate.name, picked.reason


@given(CANDIDATES, NEEDS, st.booleans(), KEPT)
def test_no_less_than_the_floor_is_kept(
    found: list[Candidate], needs: Needs, is_pressed: bool, kept: str | None
) -> None:
    picked = pick(found, needs, is_pressed=is_pressed, kept=kept)
    could = [it for it in found if needs.keeps_floor(it) and needs.is_in_time(it)]
    assert (picked is None) == (not could)
    if picked is not None:
        assert picked.candidate in could


@given(CANDIDATES, st.tuples(SHARES, SHARES), LIMITS, st.booleans())
def test_who_asks_for_more_never_gets_less(
    found: list[Candidate], bounds: tuple[float, float], limit: float | None, is_pressed: bool
) -> None:
    low, high = (pick(found, Needs(it, it, limit), is_pressed=is_pressed) for it in sorted(bounds))
    if high is not None:
        assert low is not None
        assert low.candidate.quality <= high.candidate.quality
        assert low.candidate.flops <= high.candidate.flops


@given(CANDIDATES, NEEDS)
def test_pressure_never_costs_more(found: list[Candidate], needs: Needs) -> None:
    calm, pressed = pick(found, needs), pick(found, needs, is_pressed=True)
    assert (calm is None) == (pressed is None)
    if calm is not None and pressed is not None:
        assert pressed.candidate.flops <= calm.candidate.flops


@given(CANDIDATES, SHARES, LIMITS)
def test_a_request_that_names_its_quality_does_not_feel_pressure(
    found: list[Candidate], share: float, limit: float | None
) -> None:
    needs = Needs(share, share, limit)
    assert pick(found, needs) == pick(found, needs, is_pressed=True)


@given(CANDIDATES, NEEDS, st.booleans(), KEPT)
def test_a_conversation_keeps_its_policy_as_long_as_that_is_good_enough(
    found: list[Candidate], needs: Needs, is_pressed: bool, kept: str | None
) -> None:
    picked = pick(found, needs, is_pressed=is_pressed, kept=kept)
    own = next((it for it in found if it.name == kept), None)
    is_good = own is not None and needs.keeps_floor(own) and needs.is_in_time(own)
    is_kept = picked is not None and picked.reason is Reason.CONVERSATION
    assert is_kept == is_good
    if picked is not None and is_kept:
        assert picked.candidate == own


@given(CANDIDATES, NEEDS)
def test_the_nearest_keeps_the_floor_where_one_does(found: list[Candidate], needs: Needs) -> None:
    is_kept = any(map(needs.keeps_floor, found))
    near = nearest(found, needs)
    assert needs.keeps_floor(near) or not is_kept
    assert is_kept or near.quality == max(it.quality for it in found)


@given(st.lists(st.floats(0, 3), min_size=2), st.floats(0.1, 1), st.floats(1.1, 2))
def test_nothing_changes_inside_the_band(waits: list[float], low: float, high: float) -> None:
    band, states = PressureBand(high, low), [False]
    for wait in waits:
        states.append(band.is_pressed(wait, was_pressed=states[-1]))
    for wait, (before, after) in zip(waits, pairwise(states), strict=True):
        if low < wait < high:
            assert after == before
        else:
            assert after == (wait >= high)


def test_the_cheapest_that_is_good_enough() -> None:
    assert chosen(pick(ALL, Needs(0.98, 0.9))) == ("good", Reason.CHEAPEST)
    assert chosen(pick(ALL, Needs(0.97, 0.97))) == ("good", Reason.CHEAPEST)
    assert chosen(pick(ALL, Needs(0.99, 0.99))) == ("full", Reason.CHEAPEST)
    assert pick([GOOD, CHEAP], Needs(0.99, 0.99)) is None


def test_pressure_goes_down_to_the_floor() -> None:
    assert chosen(pick(ALL, Needs(0.98, 0.9), is_pressed=True)) == ("cheap", Reason.PRESSURE)
    assert chosen(pick(ALL, Needs(0.98, 0.96), is_pressed=True)) == ("good", Reason.CHEAPEST)


def test_what_is_warm_counts() -> None:
    warm = replace(FULL, flops=10)
    assert chosen(pick([warm, GOOD, CHEAP], Needs(0.9, 0.9))) == ("full", Reason.WARM)


def test_a_limit_of_time_goes_before_the_usual_quality_and_not_below_the_floor() -> None:
    slow = [replace(it, seconds=it.flops / 100) for it in ALL]
    assert chosen(pick(slow, Needs(0.98, 0.9, 0.9))) == ("good", Reason.CHEAPEST)
    assert chosen(pick(slow, Needs(0.98, 0.9, 0.7))) == ("cheap", Reason.LATENCY)
    assert pick(slow, Needs(0.98, 0.96, 0.7)) is None
    assert nearest(slow, Needs(0.98, 0.96, 0.7)).name == "good"


def test_a_usual_quality_that_nothing_reaches_is_the_best_that_is_reached() -> None:
    assert chosen(pick([GOOD, CHEAP], Needs(0.99, 0.9))) == ("good", Reason.CHEAPEST)
