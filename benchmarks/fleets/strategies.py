"""Ways to choose a replica: the one that the server runs, and those that it is held against."""

from collections.abc import Callable, Collection, Iterable
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipserve.ray.placing import Bound, Replicas, Route, place

Loads = NDArray[np.int64]
# Returns a place, given those there are, the request, the loads that are known, what to avoid.
Choose = Callable[[Replicas, Route, Loads, Collection[int]], int | None]


def placed(bound: Bound, *, by_policy: bool = True) -> Choose:
    """Return the server's own way; without policies, what spills goes on by its picture alone."""

    def choose(
        replicas: Replicas, route: Route, loads: Loads, avoided: Collection[int]
    ) -> int | None:
        known = route if by_policy else Route(route.content, b"")
        return place(replicas, known, loads, bound, avoided)

    return choose


def by_hash(replicas: Replicas, route: Route, _: Loads, avoided: Collection[int]) -> int | None:
    """Choose the picture's home, however busy it is."""
    return _first(replicas.order(route) if avoided else [replicas.home(route)], avoided)


def least_loaded(
    replicas: Replicas, _: Route, loads: Loads, avoided: Collection[int]
) -> int | None:
    """Choose whichever is known to have the fewest requests, the first of several."""
    return _first(np.argsort(loads, kind="stable") if avoided else [int(np.argmin(loads))], avoided)


def at_random(seed: int) -> Choose:
    """Return what chooses any."""
    generator = np.random.default_rng(seed)

    def choose(replicas: Replicas, _: Route, __: Loads, avoided: Collection[int]) -> int | None:
        size = len(replicas.names)
        order = generator.permutation(size) if avoided else [generator.integers(size)]
        return _first(order, avoided)

    return choose


def in_turn() -> Choose:
    """Return what chooses one after another."""
    turns = count()

    def choose(replicas: Replicas, _: Route, __: Loads, avoided: Collection[int]) -> int | None:
        size, start = len(replicas.names), next(turns)
        return _first([(start + step) % size for step in range(len(avoided) + 1)], avoided)

    return choose


def strategies(bound: Bound, seed: int) -> dict[str, Choose]:
    """Return all, by name, the server's first."""
    return {
        "placed": placed(bound),
        "placed, by picture alone": placed(bound, by_policy=False),
        "consistent hash": by_hash,
        "least loaded": least_loaded,
        "round robin": in_turn(),
        "random": at_random(seed),
    }


def _first(order: Iterable[Any], avoided: Collection[int]) -> int | None:
    return next((int(it) for it in order if it not in avoided), None)
