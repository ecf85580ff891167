"""Who may come in: turns requests away while the server cannot or should not take them."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from skipserve.api.token_queue import TokenQueue, retry_seconds
from skipserve.errors import UnavailableError
from skipserve.metrics.registry import ServerMetrics
from skipserve.metrics.table import Rejection
from skipserve.service.service import Service

_FULL = {
    Rejection.QUEUE_FULL: "too many requests are waiting",
    Rejection.QUEUED_TOKENS: "too many prompt tokens are waiting",
    Rejection.BODY_BYTES: "too many large requests are under way",
}


class Admission:
    """Counts the requests under way.

    Attributes:
        is_draining: whether the server is about to stop; never goes back.

    Args:
        service: the engine.
        metrics: counts those turned away.
        max_requests: how many requests may wait for the engine.
        max_tokens: how many prompt tokens may wait for the first token of their answer.
        max_bytes: how many bytes of bodies there may be.
    """

    def __init__(
        self,
        service: Service,
        metrics: ServerMetrics,
        max_requests: int,
        max_tokens: int,
        max_bytes: int = sys.maxsize,
    ) -> None:
        self.is_draining = False
        self._service = service
        self._metrics = metrics
        self._max_requests = max_requests
        self._tokens = TokenQueue(max_tokens)
        metrics.watch_queue(lambda: self._tokens.num_tokens)
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._num_inside = 0
        # Those among them that the engine has not been handed.
        self._num_preparing = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def why_not_ready(self) -> str | None:
        """Why a request that came now would not be taken, the queue aside; None where it would."""
        return "the server is shutting down" if self.is_draining else self._service.why_not_ready

    @property
    def num_inside(self) -> int:
        """Requests under way, from the head of each to the end of its reply."""
        return self._num_inside

    @contextmanager
    def arrive(self) -> Iterator["Arrival"]:
        """Let a request in, and hold what its body takes: no use where there is no place.

        Raises:
            UnavailableError: there is no place now, or the server is not ready, or it is stopping.
        """
        self._check(self.why_not_ready)
        if (reason := self._full_queue()) is not None:
            raise self._full(reason)
        self._num_inside += 1
        self._is_idle.clear()
        arrival = Arrival(self)
        try:
            yield arrival
        finally:
            arrival.release()
            self._num_inside -= 1
            if self._num_inside == 0:
                self._is_idle.set()

    @contextmanager
    def admit(self) -> Iterator["Permit"]:
        """Hold a permit for one request, whose body has arrived, if only while the server stops.

        Raises:
            UnavailableError: there is none, or the engine is not ready.
        """
        self._check(self._service.why_not_ready)
        self._num_preparing += 1
        permit = Permit(self)
        try:
            yield permit
        finally:
            permit.leave_queue(is_served=False)
            permit.hand_over()

    def is_full(self, num_before: int = 0) -> bool:
        """Whether the server is ready, and has no place for another request of the usual size.

        Args:
            num_before: requests that were let in and have not been looked at.
        """
        return self.why_not_ready is None and self._full_queue(num_before) is not None

    def turn_away(self) -> UnavailableError:
        """Return why a request is turned away from a queue that is full, and count it."""
        return self._full(self._full_queue() or Rejection.QUEUE_FULL)

    def drain(self) -> None:
        """Turn all further requests away, but those whose bodies are on their way."""
        self.is_draining = True

    async def wait_idle(self) -> None:
        """Return when no request is under way."""
        await self._is_idle.wait()

    def queue(self, num_tokens: int, num_choices: int = 1) -> None:
        """Take the prompt tokens of a request into the queue, and its answers for a place each.

        Raises:
            UnavailableError: too many wait there.
        """
        # The first has its place already. Where nobody else waits, any number may.
        num_others = self._num_waiting - 1
        if num_choices > 1 and num_others and num_others + num_choices > self._max_requests:
            raise self._full(Rejection.QUEUE_FULL)
        if not self._tokens.has_room(num_tokens):
            raise self._full(Rejection.QUEUED_TOKENS)
        self._tokens.add(num_tokens)

    def unqueue(self, num_tokens: int, *, is_served: bool) -> None:
        """Let them go, answered or given up."""
        self._tokens.remove(num_tokens, is_served=is_served)

    def hand_over(self) -> None:
        """Count a request less: from now on the engine counts it."""
        self._num_preparing -= 1

    def hold(self, num_bytes: int) -> None:
        """Take bytes of a body in; give them back with a negative number.

        Raises:
            UnavailableError: there are too many.
        """
        if num_bytes > 0 and self._num_bytes + num_bytes > self._max_bytes:
            raise self._full(Rejection.BODY_BYTES)
        self._num_bytes += num_bytes

    def _check(self, why: str | None) -> None:
        if why is not None:
            raise self._rejected(
                Rejection.DRAINING if self.is_draining else Rejection.NOT_READY, why
            )
        if self._num_waiting >= self._max_requests:
            raise self._full(Rejection.QUEUE_FULL)

    @property
    def _num_waiting(self) -> int:
        """Requests that wait for the engine, those among them that are being prepared."""
        # The engine counts those that it was handed, until it has no work with them: whether their
        # clients read the answers is nothing to those who wait.
        return self._num_preparing + self._service.num_waiting

    def _full_queue(self, num_before: int = 0) -> Rejection | None:
        """Return what has no place for a request of the usual size; None where all has."""
        if self._num_waiting + num_before >= self._max_requests:
            return Rejection.QUEUE_FULL
        num_more = self._num_preparing + num_before + 1
        return None if self._tokens.has_room_for_more(num_more) else Rejection.QUEUED_TOKENS

    def _full(self, reason: Rejection) -> UnavailableError:
        return self._rejected(reason, _FULL[reason], retry_seconds(self._tokens.seconds_to_empty))

    def _rejected(
        self, reason: Rejection, message: str, retry_seconds: int = 1
    ) -> UnavailableError:
        self._metrics.record_rejection(reason)
        return UnavailableError(f"{message}; try again later", retry_seconds, reason=reason)


class Arrival:
    """What the body of one request takes.

    Args:
        admission: where it is counted.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Take more bytes in.

        Raises:
            UnavailableError: there are too many of all requests.
        """
        self._admission.hold(num_bytes)
        self._num_bytes += num_bytes

    def release(self) -> None:
        """Let them go; called again, it does nothing."""
        self._admission.hold(-self._num_bytes)
        self._num_bytes = 0


class Permit:
    """The permit of one request, and what it adds to the queue.

    Args:
        admission: gave the permit.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._num_queued = 0
        self._is_preparing = True

    def hand_over(self) -> None:
        """Count as the engine's from now on; called again, it does nothing."""
        if self._is_preparing:
            self._admission.hand_over()
        self._is_preparing = False

    def join_queue(self, num_tokens: int, num_choices: int = 1) -> None:
        """Wait for the engine with so many prompt tokens, over so many answers.

        Raises:
            UnavailableError: too many wait there.
        """
        self._admission.queue(num_tokens, num_choices)
        self._num_queued = num_tokens

    def leave_queue(self, *, is_served: bool = True) -> None:
        """Count as not waiting any more; called again, it does nothing."""
        if self._num_queued:
            self._admission.unqueue(self._num_queued, is_served=is_served)
        self._num_queued = 0
