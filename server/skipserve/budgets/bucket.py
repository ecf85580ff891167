"""A token bucket: so much a minute, and what was reserved and not used comes back."""

import time
from collections.abc import Callable

_SECOND = 10**9
_MINUTE = 60 * _SECOND


class Bucket:
    """Holds what may be used now; it is full with the share of one minute, and fills steadily.

    Counts in whole numbers, of nanoseconds too: FLOPs are too many for exact floats.

    Attributes:
        per_minute: what it gains in a minute, and what it holds at most.

    Args:
        per_minute: as above.
        clock: the time in nanoseconds; never goes back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._filled_at = clock()
        # In nanoseconds' shares of what a minute brings, so that no division rounds.
        self._level = per_minute * _MINUTE

    @property
    def remaining(self) -> int:
        """What may be used now, in whole units; 0 where more was used than there was."""
        self._fill()
        return max(self._level // _MINUTE, 0)

    @property
    def reset_seconds(self) -> float:
        """How long it takes to be full, if nothing more is used."""
        return self.seconds_until(self.per_minute)

    def seconds_until(self, amount: int) -> float:
        """Return how long it takes to hold an amount, which is no more than it can hold."""
        self._fill()
        missing = amount * _MINUTE - self._level
        return max(missing, 0) / (self.per_minute * _SECOND)

    def take(self, amount: int) -> None:
        """Take an amount out, there or not; give back with a negative number."""
        self._fill()
        self._level -= amount * _MINUTE
        self._cap()

    def resize(self, per_minute: int) -> None:
        """Bring and hold another amount a minute; what was used stays used."""
        self._fill()
        self._level += (per_minute - self.per_minute) * _MINUTE
        self.per_minute = per_minute

    def _fill(self) -> None:
        now = self._clock()
        self._level += (now - self._filled_at) * self.per_minute
        self._filled_at = now
        self._cap()

    def _cap(self) -> None:
        self._level = min(self._level, self.per_minute * _MINUTE)
