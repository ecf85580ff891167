"""Who may come in: turns requests away while the server cannot or should not take them."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from skipserve.api.shares import Shares
from skipserve.api.token_queue import TokenQueue, retry_seconds
from skipserve.budgets.client import Client
from skipserve.errors import UnavailableError
from skipserve.media.places import Owner
from skipserve.metrics.registry import ServerMetrics
from skipserve.metrics.table import Rejection
from skipserve.service.service import Service

_FULL = {
    Rejection.QUEUE_FULL: "too many requests are waiting",
    Rejection.QUEUED_TOKENS: "too many prompt tokens are waiting",
    Rejection.BODY_BYTES: "too many large requests are under way",
}
_ANYBODY = Client("")


class Admission:
    """Counts the requests under way, and what each client has of places, tokens and bytes.

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
        # Of what is full, whoever has little gets some more: of bytes less, for they are memory.
        self._places = Shares(max_requests, 2 * max_requests)
        self._token_shares = Shares(max_tokens, 2 * max_tokens)
        self._byte_shares = Shares(max_bytes, max_bytes + max_bytes // 4)
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
    def wait_seconds(self) -> float:
        """How long what waits now will take at the pace of late; 0 where there was none."""
        return self._tokens.seconds_to_empty

    @property
    def num_inside(self) -> int:
        """Requests under way, from the head of each to the end of its reply."""
        return self._num_inside

    @contextmanager
    def arrive(self, client: Client = _ANYBODY) -> Iterator["Arrival"]:
        """Let a request in, and hold what its body takes: no use where there is no place.

        Raises:
            RateLimitError: as many requests of the client wait as may.
            UnavailableError: there is no place now, or the server is not ready, or it is stopping.
        """
        self._check(self.why_not_ready, client)
        if (reason := self._full_queue(client.owner)) is not None:
            raise self._full(reason)
        self._num_inside += 1
        self._is_idle.clear()
        arrival = Arrival(self, client.owner)
        try:
            yield arrival
        finally:
            arrival.release()
            self._num_inside -= 1
            if self._num_inside == 0:
                self._is_idle.set()

    @contextmanager
    def admit(self, client: Client = _ANYBODY) -> Iterator["Permit"]:
        """Hold a permit for one request, whose body has arrived, if only while the server stops.

        Raises:
            RateLimitError: as many requests of the client wait as may.
            UnavailableError: there is none, or the engine is not ready.
        """
        self._check(self._service.why_not_ready, client)
        self._places.take(client.owner, 1)
        self._num_preparing += 1
        permit = Permit(self, client.owner)
        try:
            yield permit
        finally:
            permit.leave_queue(is_served=False)
            permit.hand_over()

    def is_full(self, owner: Owner | None = None, num_before: int = 0) -> bool:
        """Whether the server is ready, and has no place for another request of the usual size.

        Args:
            owner: whose it is, who may come in still while it has less than a share; None for
                somebody who has not.
            num_before: requests that were let in and have not been looked at.
        """
        return self.why_not_ready is None and self._full_queue(owner, num_before) is not None

    def turn_away(self, owner: Owner) -> UnavailableError:
        """Return why a request is turned away from a queue that is full, and count it."""
        return self._full(self._full_queue(owner) or Rejection.QUEUE_FULL)

    def drain(self) -> None:
        """Turn all further requests away, but those whose bodies are on their way."""
        self.is_draining = True

    async def wait_idle(self) -> None:
        """Return when no request is under way."""
        await self._is_idle.wait()

    def queue(self, num_tokens: int, owner: Owner, num_choices: int = 1) -> None:
        """Take the prompt tokens of a request into the queue, and its answers for a place each.

        Raises:
            UnavailableError: too many wait there.
        """
        # The first has its place already. Where nobody else waits, any number may.
        num_others, num_more = self._num_waiting - 1, num_choices - 1
        is_full = num_more and num_others and num_others + num_choices > self._max_requests
        if is_full and not self._places.is_below(owner, num_more):
            raise self._full(Rejection.QUEUE_FULL)
        has_room = self._tokens.has_room(num_tokens)
        if not has_room and not self._token_shares.is_below(owner, num_tokens):
            raise self._full(Rejection.QUEUED_TOKENS)
        self._places.take(owner, num_more)
        self._tokens.add(num_tokens)
        self._token_shares.take(owner, num_tokens)

    def unqueue(self, num_tokens: int, owner: Owner, *, is_served: bool) -> None:
        """Let them go, answered or given up."""
        self._tokens.remove(num_tokens, is_served=is_served)
        self._token_shares.give_back(owner, num_tokens)

    def give_places_back(self, owner: Owner, num_places: int) -> None:
        """Count so many answers less that an owner waits for."""
        self._places.give_back(owner, num_places)

    def hand_over(self) -> None:
        """Count a request less: from now on the engine counts it."""
        self._num_preparing -= 1

    def hold(self, num_bytes: int, owner: Owner) -> None:
        """Take bytes of a body in; give them back with a negative number.

        Raises:
            UnavailableError: there are too many.
        """
        is_full = num_bytes > 0 and self._num_bytes + num_bytes > self._max_bytes
        if is_full and not self._byte_shares.is_below(owner, num_bytes):
            raise self._full(Rejection.BODY_BYTES)
        self._num_bytes += num_bytes
        self._byte_shares.take(owner, num_bytes)

    def _check(self, why: str | None, client: Client) -> None:
        if why is not None:
            raise self._rejected(
                Rejection.DRAINING if self.is_draining else Rejection.NOT_READY, why
            )
        client.check_queue(self._places.held_by(client.owner))
        if self._num_waiting >= self._max_requests and not self._places.is_below(client.owner, 1):
            raise self._full(Rejection.QUEUE_FULL)

    @property
    def _num_waiting(self) -> int:
        """Requests that wait for the engine, those among them that are being prepared."""
        # The engine counts those that it was handed, until it has no work with them: whether their
        # clients read the answers is nothing to those who wait.
        return self._num_preparing + self._service.num_waiting

    def _full_queue(self, owner: Owner | None, num_before: int = 0) -> Rejection | None:
        """Return what has no place for a request of the usual size; None where all has."""
        is_full = self._num_waiting + num_before >= self._max_requests
        if is_full and not (owner is not None and self._places.is_below(owner, 1)):
            return Rejection.QUEUE_FULL
        has_room = self._tokens.has_room_for_more(self._num_preparing + num_before + 1)
        # How long such a one is shows when it is there: the lengths of others tell nothing of it.
        if has_room or (owner is not None and self._token_shares.is_below(owner, 1)):
            return None
        return Rejection.QUEUED_TOKENS

    def _full(self, reason: Rejection) -> UnavailableError:
        return self._rejected(reason, _FULL[reason], retry_seconds(self._tokens.seconds_to_empty))

    def _rejected(
        self, reason: Rejection, message: str, retry_seconds: int = 1
    ) -> UnavailableError:
        self._metrics.record_rejection(reason)
        return UnavailableError(
            f"{message}; try again later", reason=reason, retry_after_seconds=retry_seconds
        )


class Arrival:
    """What the body of one request takes.

    Args:
        admission: where it is counted.
        owner: whose it is.
    """

    def __init__(self, admission: Admission, owner: Owner) -> None:
        self._admission = admission
        self._owner = owner
        self._num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Take more bytes in.

        Raises:
            UnavailableError: there are too many of all requests.
        """
        self._admission.hold(num_bytes, self._owner)
        self._num_bytes += num_bytes

    def release(self) -> None:
        """Let them go; called again, it does nothing."""
        self._admission.hold(-self._num_bytes, self._owner)
        self._num_bytes = 0


class Permit:
    """The permit of one request, and what it adds to the queue.

    Args:
        admission: gave the permit.
        owner: whose it is.
    """

    def __init__(self, admission: Admission, owner: Owner) -> None:
        self._admission = admission
        self._owner = owner
        self._num_queued = 0
        self._num_places = 1
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
        self._admission.queue(num_tokens, self._owner, num_choices)
        self._num_places = num_choices
        self._num_queued = num_tokens

    def leave_queue(self, *, is_served: bool = True) -> None:
        """Count as not waiting any more; called again, it does nothing."""
        if self._num_queued:
            self._admission.unqueue(self._num_queued, self._owner, is_served=is_served)
        self._admission.give_places_back(self._owner, self._num_places)
        self._num_queued = self._num_places = 0
