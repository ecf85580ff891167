"""How many prompt tokens wait for their first answer token, and how long they will."""

import math
import random
import time
from collections.abc import Callable

MAX_RETRY_SECONDS = 60
# Those who were turned away together come back over at least so long a time.
_SPREAD_SECONDS = 2.0
# The pace is that of about so much time in which there was a queue.
_MEMORY_SECONDS = 10.0


class TokenQueue:
    """Counts prompt tokens that wait, and measures the pace at which they are served.

    Args:
        max_tokens: how many may wait; a request that finds the queue empty is always taken.
        clock: the time in seconds.
    """

    def __init__(self, max_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.num_tokens = 0
        self._num_requests = 0
        self._max_tokens = max_tokens
        self._clock = clock
        self._counted_at = clock()
        self._busy_seconds = 0.0
        self._num_served = 0.0

    def has_room(self, num_tokens: int) -> bool:
        """Whether a request of so many tokens may wait."""
        return self.num_tokens == 0 or self.num_tokens + num_tokens <= self._max_tokens

    def has_room_for_more(self, num_requests: int) -> bool:
        """Whether so many more requests may wait that are as long as those that do, on average."""
        if not self._num_requests:
            return True
        usual = self.num_tokens / self._num_requests
        return self.num_tokens + usual * num_requests <= self._max_tokens

    def add(self, num_tokens: int) -> None:
        """Take the tokens of a request in."""
        self._pass_time()
        self._num_requests += 1
        self.num_tokens += num_tokens

    def remove(self, num_tokens: int, *, is_served: bool) -> None:
        """Let the tokens of a request go: it has its first token, or was given up."""
        self._pass_time()
        self._num_requests -= 1
        self.num_tokens -= num_tokens
        self._num_served += num_tokens if is_served else 0

    @property
    def seconds_to_empty(self) -> float:
        """How long what waits now will take at the pace of late; 0 where there was none."""
        if not self._num_served:
            return 0.0
        return self.num_tokens * self._busy_seconds / self._num_served

    def _pass_time(self) -> None:
        """Count the time since the last change, if tokens waited, and forget old times slowly."""
        now = self._clock()
        self._busy_seconds += now - self._counted_at if self.num_tokens else 0.0
        self._counted_at = now
        if self._busy_seconds > _MEMORY_SECONDS:
            self._busy_seconds /= 2
            self._num_served /= 2


def retry_seconds(seconds: float, draw: Callable[[], float] = random.random) -> int:
    """Return when to come back to a queue that takes so long to empty.

    Later by chance, up to twice as late: all at once, they would find it full again.

    Args:
        seconds: how long it takes.
        draw: gives a number from 0 to 1.
    """
    soonest = min(seconds, MAX_RETRY_SECONDS / 2)
    return max(math.ceil(soonest + draw() * max(soonest, _SPREAD_SECONDS)), 1)
