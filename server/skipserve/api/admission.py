"""Who may come in: turns requests away while the server cannot or should not take them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from skipserve.api.token_queue import TokenQueue
from skipserve.errors import UnavailableError
from skipserve.metrics.registry import ServerMetrics
from skipserve.metrics.table import Rejection
from skipserve.service.service import Service


class Admission:
    """Counts the requests under way.

    Attributes:
        is_draining: whether the server is about to stop; never goes back.

    Args:
        service: the engine.
        metrics: counts those turned away.
        max_requests: how many requests may wait for the engine.
        max_tokens: how many prompt tokens may wait for the first token of their answer.
    """

    def __init__(
        self, service: Service, metrics: ServerMetrics, max_requests: int, max_tokens: int
    ) -> None:
        self.is_draining = False
        self._service = service
        self._metrics = metrics
        self._max_requests = max_requests
        self._tokens = TokenQueue(max_tokens)
        metrics.watch_queue(lambda: self._tokens.num_tokens)
        self._num_inside = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def why_not_ready(self) -> str | None:
        """Why a request that came now would not be taken, the queue aside; None where it would."""
        return "the server is shutting down" if self.is_draining else self._service.why_not_ready

    @contextmanager
    def admit(self) -> Iterator["Permit"]:
        """Hold a permit for one request.

        Raises:
            UnavailableError: there is none, or the server is not ready, or it is stopping.
        """
        self._check()
        self._num_inside += 1
        self._is_idle.clear()
        permit = Permit(self)
        try:
            yield permit
        finally:
            permit.leave_queue(is_served=False)
            self._num_inside -= 1
            if self._num_inside == 0:
                self._is_idle.set()

    def drain(self) -> None:
        """Turn all further requests away."""
        self.is_draining = True

    async def wait_idle(self) -> None:
        """Return when no request is under way."""
        await self._is_idle.wait()

    def queue(self, num_tokens: int) -> None:
        """Take the prompt tokens of a request into the queue.

        Raises:
            UnavailableError: too many wait there.
        """
        if not self._tokens.has_room(num_tokens):
            raise self._full(Rejection.QUEUED_TOKENS, "too many prompt tokens are waiting")
        self._tokens.add(num_tokens)

    def unqueue(self, num_tokens: int, *, is_served: bool) -> None:
        """Let them go, answered or given up."""
        self._tokens.remove(num_tokens, is_served=is_served)

    def _check(self) -> None:
        if (why := self.why_not_ready) is not None:
            raise self._rejected(
                Rejection.DRAINING if self.is_draining else Rejection.NOT_READY, why
            )
        # Counted here and not in the engine, which hears of a burst too late.
        if self._num_inside - self._service.num_running >= self._max_requests:
            raise self._full(Rejection.QUEUE_FULL, "too many requests are waiting")

    def _full(self, reason: Rejection, message: str) -> UnavailableError:
        return self._rejected(reason, message, self._tokens.seconds_to_empty)

    def _rejected(
        self, reason: Rejection, message: str, retry_seconds: int = 1
    ) -> UnavailableError:
        self._metrics.record_rejection(reason)
        return UnavailableError(f"{message}; try again later", retry_seconds, reason=reason)


class Permit:
    """The permit of one request, and what it adds to the queue.

    Args:
        admission: gave the permit.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._num_queued = 0

    def join_queue(self, num_tokens: int) -> None:
        """Wait for the engine with a prompt of so many tokens.

        Raises:
            UnavailableError: too many wait there.
        """
        self._admission.queue(num_tokens)
        self._num_queued = num_tokens

    def leave_queue(self, *, is_served: bool = True) -> None:
        """Count as not waiting any more; called again, it does nothing."""
        if self._num_queued:
            self._admission.unqueue(self._num_queued, is_served=is_served)
        self._num_queued = 0
