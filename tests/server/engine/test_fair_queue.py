"""Tests of who is next: owners by turns, by what their requests cost."""

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import count

import pytest
from engine_parts import EngineParts, make_sequence
from fake_decoder import make_request
from hypothesis import given
from hypothesis import strategies as st

from skipserve.engine.fair_queue import FairQueue
from skipserve.engine.sequence import Sequence

pytestmark = pytest.mark.fast

A, B, C = 1, 2, 3
_numbers = count()


def sequence(owner: int, planned_flops: int = 1, priority: int = 0) -> Sequence:
    request = make_request(f"{owner}-{next(_numbers)}", num_text=0)
    return make_sequence(
        replace(request, owner=owner, planned_flops=planned_flops, priority=priority)
    )


def lined_up(*waiting: Sequence) -> FairQueue:
    turns = FairQueue()
    for each in waiting:
        turns.append(each)
    return turns


def order(turns: FairQueue) -> list[int]:
    owners = []
    while turns:
        owners.append(turns.pop().request.owner)
    return owners


def test_one_owner_is_served_as_it_came_whatever_its_requests_cost() -> None:
    waiting = [sequence(A, cost) for cost in (5, 1000, 1, 0)]
    turns = lined_up(*waiting)
    assert (len(turns), list(turns)) == (4, waiting)
    assert [turns.pop() for _ in waiting] == waiting
    assert not turns
    assert all(each.turn_cost == 0 for each in waiting)


def test_one_owner_s_flood_holds_up_nobody() -> None:
    flood = [sequence(A) for _ in range(100)]
    turns = lined_up(*flood, *(sequence(B) for _ in range(3)), sequence(C))
    assert order(turns)[:8] == [A, B, C, A, B, A, B, A]


def test_priority_orders_the_requests_of_an_owner_and_nobody_else_s() -> None:
    late, soon, other = sequence(A, priority=1), sequence(A, priority=-1), sequence(B)
    usual, usual_too = sequence(A), sequence(A)
    turns = lined_up(late, other, usual, soon, usual_too)
    assert [turns.pop() for _ in range(5)] == [soon, other, usual, usual_too, late]


def test_one_that_waits_again_comes_after_those_of_its_owner_with_a_lower_priority() -> None:
    first, second = sequence(A, priority=1), sequence(A, priority=1)
    turns = lined_up(first, second)
    assert turns.pop() is first
    urgent = sequence(A, priority=0)
    turns.append(urgent)
    turns.put_back(first)
    assert list(turns) == [urgent, first, second]


def test_requests_that_cost_nothing_take_turns_too() -> None:
    turns = lined_up(*(sequence(owner, 0) for owner in (A, A, A, B, B)))
    assert order(turns) == [A, B, A, B, A]


def test_many_small_requests_weigh_as_much_as_few_large_ones() -> None:
    large = [sequence(A, 10) for _ in range(3)]
    turns = lined_up(*large, *(sequence(B, 1) for _ in range(100)))
    owners = order(turns)[:33]
    assert Counter(owners) == {A: 3, B: 30}
    assert [owner for owner in owners[:22] if owner == A] == [A, A]


def test_who_comes_late_waits_for_one_turn_of_the_others() -> None:
    turns = lined_up(*(sequence(A, 7) for _ in range(20)), *(sequence(B, 7) for _ in range(20)))
    for _ in range(9):
        turns.pop()
    turns.append(sequence(C, 7))
    assert C in {turns.pop().request.owner for _ in range(3)}


def test_what_cannot_start_comes_back_as_if_it_had_never_gone() -> None:
    waiting = [sequence(owner, cost) for owner, cost in ((A, 3), (A, 2), (B, 3), (B, 1), (C, 1))]
    expected = order(lined_up(*waiting))
    turns = lined_up(*waiting)
    for num_held in (1, 2, 1):
        held = [turns.pop() for _ in range(num_held)]
        for each in reversed(held):
            turns.put_back(each)
        assert all(each.turn_cost == 0 for each in held)
    assert len(turns) == 5
    assert order(turns) == expected


def test_one_that_has_run_comes_back_before_those_that_came_later() -> None:
    first, second, third = (sequence(A) for _ in range(3))
    turns = lined_up(first, second, third, sequence(B))
    started = [turns.pop() for _ in range(3)]
    assert started[0] is first
    for each in (second, first):
        if each in started:
            turns.put_back(each)
    assert turns.pop() is first


def test_who_waits_while_another_is_in_the_way_saves_no_more_than_a_round() -> None:
    """Those of A wait for a page that is being computed, the last of B for pages."""
    blocked = sequence(B, 5)
    turns = lined_up(*(sequence(owner, 5) for owner in [A, B] * 50), blocked)
    for _ in range(100):
        held = []
        while blocked not in held:
            held.append(turns.pop())
        for each in reversed(held):
            turns.put_back(each)
    turns.append(sequence(C, 5))
    assert C in {turns.pop().request.owner for _ in range(8)}


def test_one_that_is_given_up_waits_no_more() -> None:
    first, second, other = sequence(A), sequence(A), sequence(B)
    turns = lined_up(first, second, other)
    turns.remove(first)
    turns.remove(other)
    assert list(turns) == [second]
    turns.remove(second)
    assert not turns


@given(
    costs=st.dictionaries(
        st.integers(1, 4), st.lists(st.integers(0, 50), min_size=1, max_size=30), min_size=2
    ),
    num_turns=st.integers(0, 120),
)
def test_while_all_wait_all_are_served_alike(costs: dict[int, list[int]], num_turns: int) -> None:
    turns = lined_up(*(sequence(owner, cost) for owner in costs for cost in costs[owner]))
    left, served = {owner: len(of) for owner, of in costs.items()}, defaultdict[int, int](int)
    largest = max(max(of) for of in costs.values()) or 1
    for _ in range(num_turns):
        if not turns or 0 in left.values():
            break
        each = turns.pop()
        served[each.request.owner] += max(each.request.planned_flops, 1)
        left[each.request.owner] -= 1
    shares = [served[owner] for owner in costs]
    assert max(shares) - min(shares) <= 3 * largest


def test_a_flood_leaves_room_for_others_in_the_scheduler() -> None:
    """Two run at a time: each second one that starts is the other's, until it has no more."""
    parts = EngineParts(max_running=2)
    requests = [
        replace(make_request(f"{owner}{n}", max_tokens=1), owner=owner, cache_salt=f"{owner}{n}")
        for owner, num in ((A, 20), (B, 4))
        for n in range(num)
    ]
    for request in requests:
        parts.add(request)
    started = []
    for _ in range(4):
        step = parts.scheduler.schedule()
        started += [chunk.sequence.request.owner for chunk in step.chunks]
        parts.finish(step)
        assert parts.scheduler.check(parts.scheduler) == []
    assert started == [A, B] * 4
