"""Spaces out what costs little once and much a thousand times over."""

import math
import time
from collections.abc import Callable
from pathlib import Path

# What was not used of the share is kept for so long: a few clients at once are told at once.
_KEPT_SECONDS = 1.0
# Nobody waits longer, whatever has come before him.
MOST_SECONDS = 5.0
# Turns fall on the ticks of a clock: to wake up for each of them costs more than most of them.
_TICK_SECONDS = 0.05


class OwnTime:
    """A clock that stands while this thread waits for a processor that others have.

    A share of the time that passes would be most of what is left of it on a busy machine.

    Args:
        clock: the time in seconds.
        waited: how long the thread has waited for a processor, in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        waited: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._waited = waited or _waited_seconds
        self._read_at = -math.inf
        self._own = 0.0

    def __call__(self) -> float:
        """Return the time, which is read once a tick."""
        now = self._clock()
        if now - self._read_at >= _TICK_SECONDS:
            self._read_at, self._own = now, max(self._own, now - self._waited())
        return self._own


def _waited_seconds() -> float:
    """Return how long this thread has waited for a processor; 0 where the system does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class Pace:
    """Lets something take a share of the processor at most, by letting each wait for its turn.

    Args:
        share: how much of one core it may take, of what this process could have of it.
        clock: the time in seconds; our own unless said otherwise.
    """

    def __init__(self, share: float, clock: Callable[[], float] | None = None) -> None:
        self._share = share
        self._clock = clock or OwnTime()
        self._next_at = self._clock()

    def wait_seconds(self, cost_seconds: float) -> float:
        """Return how long one that costs so much of the processor has to wait for its turn."""
        now = self._clock()
        begins_at = max(self._next_at, now - _KEPT_SECONDS)
        begins_at = min(begins_at, now + MOST_SECONDS)
        self._next_at = begins_at + cost_seconds / self._share
        return (
            math.ceil(begins_at / _TICK_SECONDS) * _TICK_SECONDS - now if begins_at > now else 0.0
        )
