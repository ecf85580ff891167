"""Turns requests away by their heads alone while the queue is full: cheaply, and at a pace."""

import asyncio
import logging
import time
from collections.abc import Callable, Container
from dataclasses import dataclass

import h11
from starlette.types import Scope

from skipserve.api.admission import Admission
from skipserve.api.auth import client_of
from skipserve.api.exchange import request_id_of
from skipserve.api.pace import Pace
from skipserve.budgets.client import Client
from skipserve.errors import SkipserveError, UnavailableError
from skipserve.logging_setup import request_id
from skipserve.metrics.registry import ServerMetrics

logger = logging.getLogger("skipserve.requests")
# What it costs to turn one away, of a core: measured, and rounded up.
_COST_SECONDS = 0.0002
# And what it costs to take in the connection that it came on.
_CONNECTION_SECONDS = 0.0002
# One line each is what a flood is after; the metrics count them.
_LOG_SECONDS = 1.0


@dataclass(frozen=True)
class Refusal:
    """What one that is turned away is told, and when.

    Attributes:
        error: why.
        path: what was asked for.
        request_id: the request's.
        wait_seconds: from now until it is told.
    """

    error: UnavailableError
    path: str
    request_id: str
    wait_seconds: float


class Door:
    """Looks at the head of each request before anything is made for it.

    Clients that come again at once would otherwise take half of the core that the engine runs on,
    however little a refusal costs: they come as often as they are answered. So those who are many
    wait for theirs. Whoever holds less than a share of the queue may come in though it is full.

    Args:
        admission: knows whether there is a place.
        metrics: counts what clients are told.
        paths: those whose requests wait for the engine.
        check_key: notes whose a request is; raises where it is for others to refuse: it has no good
            key.
        pace: that of refusals.
        clock: the time in seconds.
    """

    def __init__(
        self,
        admission: Admission,
        metrics: ServerMetrics,
        paths: Container[str],
        check_key: Callable[[Scope], None],
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admission = admission
        self._metrics = metrics
        self._paths = paths
        self._check_key = check_key
        self._pace = pace
        self._clock = clock
        self._logged_at = -_LOG_SECONDS
        self._num_untold = 0
        self._num_let_in = 0

    def turn_away(
        self, request: h11.Request, address: str, *, is_first: bool = False
    ) -> Refusal | None:
        """Return how a request is turned away; None where it may come in, or others see to it.

        Args:
            request: its head.
            address: where it comes from.
            is_first: whether it is the first of its connection.
        """
        path = request.target.partition(b"?")[0].decode("ascii")
        if request.method != b"POST" or path not in self._paths:
            return None
        if not self._admission.is_full(num_before=self._num_let_in):
            self._let_in()
            return None
        client = self._client(path, request, address)
        if client is None:
            return None
        if not self._admission.is_full(client.owner, self._num_let_in):
            self._let_in()
            return None
        error = self._admission.turn_away(client.owner)
        self._metrics.record_error(error.status)
        given = dict(request.headers).get(b"x-request-id", b"")
        cost = _COST_SECONDS + is_first * _CONNECTION_SECONDS
        refusal = Refusal(
            error, path, request_id_of(given.decode("latin-1")), self._pace.wait_seconds(cost)
        )
        self._log(path, refusal)
        return refusal

    def _let_in(self) -> None:
        """Count one who is looked at when the event loop comes round, not before."""
        if not self._num_let_in:
            asyncio.get_running_loop().call_soon(self._forget)
        self._num_let_in += 1

    def _forget(self) -> None:
        self._num_let_in = 0

    def _client(self, path: str, request: h11.Request, address: str) -> Client | None:
        """Return whose a request is; None where it has no good key."""
        state: dict[str, object] = {}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": list(request.headers),
            "state": state,
        }
        try:
            self._check_key(scope)
        except SkipserveError:
            return None
        return client_of(state, address)

    def _log(self, path: str, refusal: Refusal) -> None:
        """Write a line as for any request, once a second, that says how many had none."""
        now = self._clock()
        if now - self._logged_at < _LOG_SECONDS:
            self._num_untold += 1
            return
        error, num_more = refusal.error, self._num_untold
        self._logged_at, self._num_untold = now, 0
        fields = {
            "method": "POST",
            "path": path,
            "status": error.status,
            "duration_seconds": round(refusal.wait_seconds, 6),
            "error": error.type,
            "reason": error.reason,
            "num_more": num_more,
        }
        message = f"POST {path} {error.status} {refusal.wait_seconds:.3f} s {error.type}"
        more = f" (and {num_more} more before)" if num_more else ""
        token = request_id.set(refusal.request_id)
        logger.info("%s %s%s", message, error.reason, more, extra={"fields": fields})
        request_id.reset(token)
