"""Spaces out what costs little once and much a thousand times over."""

import math
import time
from collections.abc import Callable

# What was not used of the share is kept for so long: a few clients at once are told at once.
_KEPT_SECONDS = 1.0
# Nobody waits longer, whatever has come before him.
MOST_SECONDS = 2.0
# Turns fall on the ticks of a clock: to wake up for each of them costs more than most of them.
_TICK_SECONDS = 0.05


class Pace:
    """Lets something take a share of the processor at most, by letting each wait for its turn.

    Args:
        share: how much of one core it may take.
        clock: the time in seconds.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._next_at = clock()

    def wait_seconds(self, cost_seconds: float) -> float:
        """Return how long one that costs so much of the processor has to wait for its turn."""
        now = self._clock()
        begins_at = max(self._next_at, now - _KEPT_SECONDS)
        begins_at = min(begins_at, now + MOST_SECONDS)
        self._next_at = begins_at + cost_seconds / self._share
        return (
            math.ceil(begins_at / _TICK_SECONDS) * _TICK_SECONDS - now if begins_at > now else 0.0
        )
