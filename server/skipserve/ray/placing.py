"""Which replica a request goes to: where its picture is warm, unless that one is too busy. No Ray.

Source of the order: highest random weight, Thaler and Ravishankar 1998. Of the bound: consistent
hashing with bounded loads, Mirrokni, Thorup and Zadimoghaddam 2018 (arXiv 1608.01350).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Loads = NDArray[np.int64]

_SHIFT = np.uint64(32)
_FACTOR = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Bound:
    """How busy a replica may be before requests go past it.

    Attributes:
        over_mean: how many times the mean of all.
        least: requests that any may have, for so many run together at little cost.
    """

    over_mean: float = 1.25
    least: int = 8

    def __post_init__(self) -> None:
        """Refuse bounds at which there may be no room anywhere."""
        if self.over_mean < 1 or self.least < 1:
            raise ValueError(f"{self.over_mean} and {self.least} must be at least 1")

    def of(self, loads: Loads) -> float:
        """Return what a replica may have with the request that is placed."""
        return max(self.least, self.over_mean * (int(loads.sum()) + 1) / len(loads))


@dataclass(frozen=True)
class Route:
    """What of a request decides where it goes.

    Attributes:
        content: what is warm somewhere: its pictures' digests, or the beginning of its text.
        policy: the digest of its skip policy.
    """

    content: bytes
    policy: bytes


class Replicas:
    """Those that can take requests. Two with the same names order any request alike.

    Args:
        names: what they are called, each once.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if len(set(names)) != len(names):
            raise ValueError(f"a name stands twice in {names}")
        self.names = tuple(names)
        self._hashes = np.array([_hash(name.encode()) for name in names], np.uint64)

    def home(self, route: Route) -> int:
        """Return where the content is at home, whatever the policy: its features are there."""
        return int(np.argmax(self._weights(route.content)))

    def order(self, route: Route) -> list[int]:
        """Return the places of all, the best first.

        Behind the home come the others by content and policy together: what finds no room at home
        goes where others of that policy went, whose pages it shares.
        """
        weights = self._weights(route.content + route.policy)
        weights[self.home(route)] = np.iinfo(np.uint64).max
        return [int(place) for place in np.argsort(~weights, kind="stable")]

    def _weights(self, key: bytes) -> NDArray[np.uint64]:
        """Return what each replica weighs for a key, `[N]`: the largest is the best."""
        mixed = self._hashes ^ np.uint64(_hash(key))
        for _ in range(2):
            mixed = (mixed ^ (mixed >> _SHIFT)) * _FACTOR
        return mixed ^ (mixed >> _SHIFT)


def place(
    replicas: Replicas,
    route: Route,
    loads: Sequence[int] | Loads,
    bound: Bound,
    avoided: Collection[int] = (),
) -> int | None:
    """Return the place of the replica that takes a request; None where there is none.

    The first in order that is below the bound; where all are at it, the least busy of those that
    may be taken, the earliest in order.

    Args:
        replicas: those that there are.
        route: what of the request decides.
        loads: requests that each has, as far as is known, in the order of the names.
        bound: how busy it may be.
        avoided: places that have lost the request before; never taken.
    """
    if len(avoided) >= len(replicas.names):
        return None
    counted = np.asarray(loads)
    most = bound.of(counted)
    home = replicas.home(route)
    if home not in avoided and counted[home] + 1 <= most:
        return home
    order = [it for it in replicas.order(route) if it not in avoided]
    with_room = (it for it in order if counted[it] + 1 <= most)
    return next(with_room, min(order, key=lambda it: int(counted[it])))


def _hash(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
