"""Placing, by its properties."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.ray.placing import Bound, Replicas, Route, place

pytestmark = pytest.mark.fast

_NAMES = tuple(f"replica-{number}" for number in range(16))
_UNBOUND = Bound(over_mean=1000.0, least=10**6)

_routes = st.builds(Route, st.binary(min_size=1, max_size=32), st.binary(max_size=8))
_names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True)


def _route(number: int, policy: bytes = b"") -> Route:
    return Route(number.to_bytes(4, "big"), policy)


@given(_names, _routes)
def test_the_order_hangs_on_names_alone(names: list[str], route: Route) -> None:
    here, there = Replicas(names), Replicas(names[::-1])

    order = [names[it] for it in here.order(route)]

    assert sorted(order) == sorted(names)
    assert order == [names[::-1][it] for it in there.order(route)]


@given(_names, _routes, st.binary(max_size=8))
def test_a_picture_is_at_home_in_one_place_whatever_the_policy(
    names: list[str], route: Route, policy: bytes
) -> None:
    replicas = Replicas(names)

    assert replicas.order(route)[0] == replicas.order(Route(route.content, policy))[0]


def test_homes_are_spread_evenly() -> None:
    replicas = Replicas(_NAMES)
    homes = Counter(replicas.order(_route(number))[0] for number in range(16_000))

    # 1000 each, with a deviation of 31.
    assert all(850 < homes[it] < 1150 for it in range(16))


def test_what_finds_no_room_at_home_is_spread_too_and_each_policy_stays_together() -> None:
    replicas = Replicas(_NAMES)
    second = [replicas.order(_route(7, bytes([policy])))[1] for policy in range(64)]

    assert len(set(second)) > 10
    assert second == [replicas.order(_route(7, bytes([policy])))[1] for policy in range(64)]


def test_a_replica_that_goes_moves_its_own_pictures_alone() -> None:
    before, after = Replicas(_NAMES), Replicas(_NAMES[:-1])

    for number in range(500):
        home = before.order(_route(number))[0]
        if home != 15:
            assert after.order(_route(number))[0] == home


@given(_routes, st.lists(st.integers(0, 40), min_size=1, max_size=12), st.floats(1.0, 3.0))
def test_none_is_over_the_bound_while_another_is_below(
    route: Route, loads: list[int], over_mean: float
) -> None:
    replicas = Replicas([str(it) for it in range(len(loads))])
    bound = Bound(over_mean, least=4)

    taken = place(replicas, route, loads, bound)

    assert taken is not None
    # By the pigeonhole principle: the mean with the new request is never above the bound.
    assert loads[taken] + 1 <= max(4, over_mean * (sum(loads) + 1) / len(loads)) or loads[
        taken
    ] == min(loads)
    earlier = replicas.order(route)[: replicas.order(route).index(taken)]
    assert all(loads[it] + 1 > bound.of(np.array(loads)) for it in earlier)


@given(_routes, st.sets(st.integers(0, 15)))
def test_what_lost_a_request_never_gets_it_again(route: Route, avoided: set[int]) -> None:
    taken = place(Replicas(_NAMES), route, [0] * 16, Bound(), avoided)

    assert taken not in avoided
    assert (taken is None) == (len(avoided) == 16)


def test_a_hot_picture_goes_on_in_order() -> None:
    replicas, loads = Replicas(_NAMES), [0] * 16
    order = replicas.order(_route(3, b"full"))

    placed = []
    for _ in range(24):
        taken = place(replicas, _route(3, b"full"), loads, Bound(1.25, 8))
        assert taken is not None
        loads[taken] += 1
        placed.append(taken)

    assert placed == [order[0]] * 8 + [order[1]] * 8 + [order[2]] * 8


def test_nothing_is_placed_where_nobody_is() -> None:
    assert place(Replicas([]), _route(1), [], Bound()) is None


def test_without_a_bound_the_home_takes_all() -> None:
    replicas = Replicas(_NAMES)

    assert place(replicas, _route(3), [100] * 16, _UNBOUND) == replicas.order(_route(3))[0]


def test_no_name_stands_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        Replicas(["a", "a"])


@pytest.mark.parametrize(("over_mean", "least"), [(0.9, 4), (1.25, 0)])
def test_a_bound_leaves_room_somewhere(over_mean: float, least: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Bound(over_mean, least)
