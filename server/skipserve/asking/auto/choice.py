"""The choice of a policy among some, from plain numbers. Knows no request, no clock, no server."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a policy was chosen.

    CHEAPEST: no other that keeps the quality costs less.
    WARM: the same, because pages that it can reuse are there already.
    PRESSURE: requests wait, and so the floor counted in the place of the usual quality.
    LATENCY: those of the usual quality take too long; the best of the others.
    CONVERSATION: an earlier turn ran under it.
    UNMEASURED: no quality was measured on these weights.
    UNMET: nothing meets what was asked for, and the operator lets the request run all the same.
    """

    CHEAPEST = "cheapest"
    WARM = "warm"
    PRESSURE = "pressure"
    LATENCY = "latency"
    CONVERSATION = "conversation"
    UNMEASURED = "unmeasured"
    UNMET = "unmet"


@dataclass(frozen=True)
class Candidate:
    """A policy that may be chosen.

    Attributes:
        name: the policy's.
        quality: the share of what the full model reaches that it keeps at least.
        flops: what the request costs under it, without the rows that are there already.
        cold_flops: the same if none were.
        seconds: how long the request is expected to take under it; None where nobody knows.
    """

    name: str
    quality: float
    flops: int
    cold_flops: int
    seconds: float | None = None


@dataclass(frozen=True)
class Needs:
    """What a policy must keep to.

    Attributes:
        quality: the share that is kept while nothing speaks against it.
        floor: no less is kept, come what may; at most `quality`.
        max_seconds: how long the request may take; None for any time.
    """

    quality: float
    floor: float
    max_seconds: float | None = None

    def keeps_floor(self, candidate: Candidate) -> bool:
        """Whether a policy is good enough."""
        return candidate.quality >= self.floor

    def is_in_time(self, candidate: Candidate) -> bool:
        """Whether a policy is quick enough, as far as anybody knows."""
        if self.max_seconds is None or candidate.seconds is None:
            return True
        return candidate.seconds <= self.max_seconds


@dataclass(frozen=True)
class Picked:
    """A policy that was chosen, and why."""

    candidate: Candidate
    reason: Reason


@dataclass(frozen=True)
class PressureBand:
    """From which wait on there is pressure, and down to which it lasts.

    Attributes:
        high: seconds of expected wait from which on there is pressure.
        low: seconds up to which there is none; in between it stays as it was.
    """

    high: float
    low: float

    def is_pressed(self, wait_seconds: float, *, was_pressed: bool) -> bool:
        """Return whether there is pressure, from whether there was."""
        if wait_seconds >= self.high:
            return True
        return was_pressed and wait_seconds > self.low


def pick(
    candidates: Collection[Candidate],
    needs: Needs,
    *,
    is_pressed: bool = False,
    kept: str | None = None,
) -> Picked | None:
    """Return the policy for a request; None where none meets what it needs.

    The earlier of two that are alike is chosen.

    Args:
        candidates: among which.
        needs: what it must keep to.
        is_pressed: whether requests wait.
        kept: the policy of the conversation so far; None where there is none.
    """
    good = [it for it in candidates if needs.keeps_floor(it)]
    in_time = [it for it in good if needs.is_in_time(it)]
    if not in_time:
        return None
    if (own := next((it for it in in_time if it.name == kept), None)) is not None:
        return Picked(own, Reason.CONVERSATION)
    # Where no policy is as good as is usual, the best there is counts.
    usual = min(needs.quality, max(it.quality for it in good))
    best = [it for it in in_time if it.quality >= usual]
    if is_pressed:
        picked = _cheapest(in_time)
        return picked if picked.candidate in best else Picked(picked.candidate, Reason.PRESSURE)
    if best:
        return _cheapest(best)
    return Picked(min(in_time, key=lambda it: (-it.quality, it.flops)), Reason.LATENCY)


def nearest(candidates: Sequence[Candidate], needs: Needs) -> Candidate:
    """Return what comes nearest to what nothing meets: of those that keep the floor, or the best.

    Args:
        candidates: at least one.
        needs: what none of them meets.
    """
    good = [it for it in candidates if needs.keeps_floor(it)]
    if not good:
        return max(candidates, key=lambda it: it.quality)
    return min(good, key=lambda it: (it.seconds or 0.0, it.flops))


def _cheapest(candidates: Collection[Candidate]) -> Picked:
    warm = _least(candidates, lambda it: it.flops)
    is_cold = warm == _least(candidates, lambda it: it.cold_flops)
    return Picked(warm, Reason.CHEAPEST if is_cold else Reason.WARM)


def _least(candidates: Collection[Candidate], cost: Callable[[Candidate], int]) -> Candidate:
    """Return what costs least; of those that cost the same, the best."""
    return min(candidates, key=lambda it: (cost(it), -it.quality))
