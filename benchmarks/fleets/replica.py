"""A replica that takes time and keeps pictures warm, and computes nothing."""

import heapq
import math
from collections import OrderedDict, deque
from dataclasses import dataclass

from fleets.terms import Terms, Warmth


@dataclass(slots=True)
class Asked:
    """A request.

    Attributes:
        number: its place in the workload.
        picture: which one.
        policy: its name.
        at: when it came, in seconds.
        warmth: what it found where it last started.
        has_spilled: whether it was last placed elsewhere than at its picture's home.
        lost: how often its replica was lost.
    """

    number: int
    picture: int
    policy: str
    at: float
    warmth: Warmth = Warmth.NOTHING
    has_spilled: bool = False
    lost: int = 0


class _Kept:
    """So many things, those that were used last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[object, None] = OrderedDict()

    def has(self, item: object) -> bool:
        if item in self._items:
            self._items.move_to_end(item)
            return True
        return False

    def keep(self, item: object) -> None:
        self._items[item] = None
        self._items.move_to_end(item)
        if len(self._items) > self._size:
            self._items.popitem(last=False)


class Replica:
    """Runs up to so many requests side by side, which share its speed; others wait in line.

    Features are there once a request has started, pages once it has ended: a request that starts
    between finds none.
    """

    def __init__(self, terms: Terms, max_running: int, now: float = 0.0, version: int = 0) -> None:
        self.version = version
        self._terms = terms
        self._max_running = max_running
        self._now = now
        # Work that each of those that run has got since the beginning, in seconds of one alone.
        self._given = 0.0
        # By how much must have been given when it ends.
        self._running: list[tuple[float, int, Asked]] = []
        self._waiting: deque[Asked] = deque()
        self._features, self._pages = _Kept(terms.num_features), _Kept(terms.num_pages)

    @property
    def load(self) -> int:
        """Requests that run or wait."""
        return len(self._running) + len(self._waiting)

    def requests(self) -> list[Asked]:
        """Return all that it has."""
        return [asked for _, _, asked in self._running] + list(self._waiting)

    def add(self, asked: Asked, now: float) -> None:
        """Take a request."""
        self._advance(now)
        if len(self._running) < self._max_running:
            self._start(asked)
        else:
            self._waiting.append(asked)

    def next_end(self) -> float:
        """Return when the next request ends if no other comes; infinity where there is none."""
        if not self._running:
            return math.inf
        return self._now + max(self._running[0][0] - self._given, 0.0) / self._pace

    def end(self, now: float) -> Asked:
        """End the next request, start one that waits, and return what ended."""
        self._advance(now)
        _, _, asked = heapq.heappop(self._running)
        self._pages.keep((asked.picture, asked.policy))
        if self._waiting:
            self._start(self._waiting.popleft())
        return asked

    @property
    def _pace(self) -> float:
        return self._terms.speed(len(self._running)) / len(self._running)

    def _advance(self, now: float) -> None:
        if self._running:
            self._given += (now - self._now) * self._pace
        self._now = now

    def _start(self, asked: Asked) -> None:
        if self._pages.has((asked.picture, asked.policy)):
            asked.warmth = Warmth.PAGES
        elif self._features.has(asked.picture):
            asked.warmth = Warmth.FEATURES
        else:
            asked.warmth = Warmth.NOTHING
        self._features.keep(asked.picture)
        work = self._terms.seconds[asked.policy][asked.warmth]
        heapq.heappush(self._running, (self._given + work, asked.number, asked))
