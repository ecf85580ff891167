"""Who may come in: turns requests away while the server cannot or should not take them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from skipserve.engine.service import EngineService
from skipserve.errors import UnavailableError
from skipserve.metrics.registry import Rejection, ServerMetrics


class Admission:
    """Counts the requests under way.

    Attributes:
        is_draining: whether the server is about to stop; never goes back.

    Args:
        service: the engine.
        metrics: counts those turned away.
        max_queued: how many requests may wait for the engine.
    """

    def __init__(self, service: EngineService, metrics: ServerMetrics, max_queued: int) -> None:
        self.is_draining = False
        self._service = service
        self._metrics = metrics
        self._max_queued = max_queued
        self._num_inside = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def is_ready(self) -> bool:
        """Whether a request that came now would be taken, the queue aside."""
        return not self.is_draining and self._service.is_ready

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place for one request.

        Raises:
            UnavailableError: there is none, or the server is not ready, or it is stopping.
        """
        self._check()
        self._num_inside += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._num_inside -= 1
            if self._num_inside == 0:
                self._is_idle.set()

    def drain(self) -> None:
        """Turn all further requests away."""
        self.is_draining = True

    async def wait_idle(self) -> None:
        """Return when no request is under way."""
        await self._is_idle.wait()

    def _check(self) -> None:
        if self.is_draining:
            raise self._rejected(Rejection.DRAINING, "the server is shutting down")
        if not self._service.is_ready:
            is_loading = self._service.is_alive
            reason = "the model is still loading" if is_loading else "the engine is not running"
            raise self._rejected(Rejection.NOT_READY, reason)
        # Counted here and not in the engine, which hears of a burst too late.
        if self._num_inside - self._service.num_running >= self._max_queued:
            raise self._rejected(Rejection.QUEUE_FULL, "too many requests are waiting")

    def _rejected(self, reason: Rejection, message: str) -> UnavailableError:
        self._metrics.record_rejection(reason)
        return UnavailableError(f"{message}; try again later")
