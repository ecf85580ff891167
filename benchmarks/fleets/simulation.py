"""Modelled replicas, requests that the server's own code places, and time that is skipped."""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from fleets.replica import Asked, Replica
from fleets.strategies import Choose
from fleets.terms import Terms, Warmth
from fleets.workload import Workload

from skipserve.ray.placing import Replicas, Route


@dataclass(frozen=True)
class Fleet:
    """How many, and what is known of them.

    Attributes:
        num_replicas: at the start, and again when those that were lost are back.
        max_running: requests that one runs side by side.
        num_ingresses: front ends; each knows what it has placed itself since loads were last told.
        told_seconds: how often loads are told to all of them.
        noticed_seconds: how long a lost replica is still placed on; what goes there goes on.
        back_seconds: how long after its loss another one, with nothing warm, takes its place.
        losses: when one is lost, and which.
    """

    num_replicas: int
    max_running: int = 16
    num_ingresses: int = 1
    told_seconds: float = 0.1
    noticed_seconds: float = 0.5
    back_seconds: float = 40.0
    losses: Sequence[tuple[float, int]] = ()


@dataclass
class Outcome:
    """What became of the requests.

    Attributes:
        latencies: from a request's coming to its end, in seconds, in the order of the ends.
        ends: when each ended.
        warmths: how many found what.
        num_spilled: placed elsewhere than at their picture's home.
        num_lost: times that a request lost its replica, and went on elsewhere.
        num_failed: requests that lost it twice, or found none.
    """

    latencies: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    warmths: dict[Warmth, int] = field(default_factory=lambda: dict.fromkeys(Warmth, 0))
    num_spilled: int = 0
    num_lost: int = 0
    num_failed: int = 0

    def throughput(self, skipped: float = 0.2) -> float:
        """Return requests a second, without the first share of them, which found nothing warm."""
        start = int(len(self.ends) * skipped)
        return (len(self.ends) - start - 1) / (self.ends[-1] - self.ends[start])

    def percentile(self, share: float, skipped: float = 0.2) -> float:
        """Return the latency that so many in a hundred do not exceed, without the first ones."""
        return float(np.percentile(self.latencies[int(len(self.latencies) * skipped) :], share))


class Simulation:
    """One run.

    Args:
        terms: of each replica.
        fleet: what there is.
        choose: places requests.
        workload: what is asked.
        num_clients: clients that ask one question after another; None where questions come by
            themselves, at the workload's times.
        hears: is told the share of requests that have come, now and then.
    """

    def __init__(
        self,
        terms: Terms,
        fleet: Fleet,
        choose: Choose,
        workload: Workload,
        num_clients: int | None = None,
        hears: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.outcome = Outcome()
        self._terms, self._fleet, self._choose, self._hears = terms, fleet, choose, hears
        self._workload = workload
        self._num_clients = num_clients
        self._replicas = [self._fresh(0.0) for _ in range(fleet.num_replicas)]
        self._is_lost = [False] * fleet.num_replicas
        self._known_places = list(range(fleet.num_replicas))
        self._known = Replicas([str(place) for place in self._known_places])
        self._told = np.zeros(fleet.num_replicas, np.int64)
        self._placed = np.zeros((fleet.num_ingresses, fleet.num_replicas), np.int64)
        self._told_at = 0.0
        # (when, order, what): what is a replica's place with its version, or something to do.
        self._events: list[tuple[float, int, tuple[int, int] | Callable[[float], None]]] = []
        self._num_events = 0
        self._next = 0

    def run(self) -> Outcome:
        """Run until all requests have ended."""
        for at, place in self._fleet.losses:
            self._plan(at, lambda now, place=place: self._lose(place, now))  # type: ignore[misc]
        if self._num_clients is None:
            self._plan(self._workload.times[0], self._arrive)
        else:
            for _ in range(min(self._num_clients, len(self._workload))):
                self._submit(0.0)
        while self._events:
            now, _, what = heapq.heappop(self._events)
            if callable(what):
                what(now)
            elif what[1] == self._replicas[what[0]].version and not self._is_lost[what[0]]:
                self._end(what[0], now)
        return self.outcome

    def _fresh(self, now: float, version: int = 0) -> Replica:
        return Replica(self._terms, self._fleet.max_running, now, version)

    def _plan(self, at: float, what: tuple[int, int] | Callable[[float], None]) -> None:
        self._num_events += 1
        heapq.heappush(self._events, (at, self._num_events, what))

    def _arrive(self, now: float) -> None:
        self._submit(now)
        if self._next < len(self._workload):
            self._plan(float(self._workload.times[self._next]), self._arrive)

    def _submit(self, now: float) -> None:
        number = self._next
        self._next += 1
        if number % 10_000 == 0:
            self._hears(number / len(self._workload))
        policy = self._workload.names[self._workload.policies[number]]
        self._place(Asked(number, int(self._workload.pictures[number]), policy, now), now)

    def _place(self, asked: Asked, now: float, avoided: int | None = None) -> None:
        ingress = asked.number % self._fleet.num_ingresses
        self._hear_loads(now)
        route = Route(asked.picture.to_bytes(8, "big"), asked.policy.encode())
        loads = (self._told + self._placed[ingress])[self._known_places]
        out = {it for it, place in enumerate(self._known_places) if place == avoided}
        chosen = self._choose(self._known, route, loads, out)
        if chosen is None:
            self._fail(now)
            return
        place = self._known_places[chosen]
        if self._is_lost[place]:
            self._go_on(asked, place, now)
            return
        asked.has_spilled = chosen != self._known.home(route)
        self._placed[ingress, place] += 1
        self._replicas[place].add(asked, now)
        self._watch(place)

    def _hear_loads(self, now: float) -> None:
        if now - self._told_at >= self._fleet.told_seconds:
            self._told = np.array([replica.load for replica in self._replicas], np.int64)
            self._placed[:] = 0
            self._told_at = now

    def _watch(self, place: int) -> None:
        replica = self._replicas[place]
        replica.version += 1
        at = replica.next_end()
        if at < math.inf:
            self._plan(at, (place, replica.version))

    def _end(self, place: int, now: float) -> None:
        asked = self._replicas[place].end(now)
        self._watch(place)
        self.outcome.latencies.append(now - asked.at)
        self.outcome.ends.append(now)
        self.outcome.warmths[asked.warmth] += 1
        self.outcome.num_spilled += asked.has_spilled
        self._go_on_asking(now)

    def _lose(self, place: int, now: float) -> None:
        if self._is_lost[place]:
            return
        left = self._replicas[place].requests()
        # What it had planned is not its successor's.
        self._replicas[place] = self._fresh(now, self._replicas[place].version + 1)
        self._is_lost[place] = True
        self._plan(now + self._fleet.noticed_seconds, lambda _: self._know(place, is_there=False))
        self._plan(now + self._fleet.back_seconds, lambda at: self._bring_back(place, at))
        for asked in left:
            self._go_on(asked, place, now)

    def _go_on(self, asked: Asked, place: int, now: float) -> None:
        """Place a request elsewhere that a replica has lost; once."""
        asked.lost += 1
        if asked.lost > 1:
            self._fail(now)
            return
        self.outcome.num_lost += 1
        self._place(asked, now, avoided=place)

    def _fail(self, now: float) -> None:
        self.outcome.num_failed += 1
        self._go_on_asking(now)

    def _go_on_asking(self, now: float) -> None:
        """Let a client whose question is over ask its next one."""
        if self._num_clients is not None and self._next < len(self._workload):
            self._submit(now)

    def _bring_back(self, place: int, now: float) -> None:
        self._is_lost[place] = False
        self._know(place, is_there=True)

    def _know(self, place: int, *, is_there: bool) -> None:
        places = (
            set(self._known_places) | {place} if is_there else set(self._known_places) - {place}
        )
        self._known_places = sorted(places)
        self._known = Replicas([str(it) for it in self._known_places])
