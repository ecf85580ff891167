"""Around every request: its id, one line in the log, and a reply whatever goes wrong inside."""

import asyncio
import logging
from typing import Protocol

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skipserve.api.access_log import AccessLog
from skipserve.api.admission import Admission
from skipserve.api.errors import (
    ERROR_STATUSES,
    SAFE_HEADERS,
    error_response,
    let_go,
    to_skipserve_error,
)
from skipserve.api.exchange import Exchange
from skipserve.api.forms.errors import is_of_messages
from skipserve.api.pace import Pace
from skipserve.api.usage import usage_record
from skipserve.budgets.client import Limited, Use
from skipserve.budgets.usage_log import UsageLog
from skipserve.errors import AuthenticationError, RateLimitError
from skipserve.logging_setup import request_id
from skipserve.metrics.registry import ServerMetrics

logger = logging.getLogger("skipserve.requests")
# Asked for all the time by whatever watches over the server.
_UNPACED = frozenset({"/health", "/ready", "/version"})
# What an error costs, of a core: measured where little is read before it, and rounded up; and a
# list, a schema, or the metrics; and a file of the playground's.
_ERROR_SECONDS, _PAGE_SECONDS, _FILE_SECONDS = 0.0005, 0.002, 0.001


class Tracer(Protocol):
    """Where traces of requests go."""

    def record(self, exchange: Exchange) -> str | None:
        """Trace a request that has ended; return the trace's id, None for one that has no trace."""

    def close(self) -> None:
        """Send what is left."""


class Guard:
    """The outermost of our layers.

    Args:
        app: what comes next.
        metrics: counts the errors that clients are told.
        admission: knows whether the server is about to stop. Replies then end their connections, so
            that clients open others, to servers that stay.
        pace: that of all that the engine has no part in: whoever asks on and on waits for it.
        tracer: is shown each request that has ended, but for those without a key; None traces
            nothing.
        log: takes the lines about requests.
        usage_log: gets a record of each request that has reached the engine; None where there is
            none.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServerMetrics,
        admission: Admission,
        pace: Pace,
        tracer: Tracer | None = None,
        log: AccessLog | None = None,
        usage_log: UsageLog | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._admission = admission
        self._pace = pace
        self._tracer = tracer
        self._log = log or AccessLog()
        self._usage_log = usage_log
        metrics.expect_errors(ERROR_STATUSES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; answer with an error of the one form where it raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope)
        if scope["method"] == "HEAD":
            # Answered like GET; uvicorn, which knows better, leaves the body out.
            scope = {**scope, "method": "GET"}
        send = self._watched(send, exchange)
        token = request_id.set(exchange.request_id)
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            told = to_skipserve_error(error)
            exchange.fail(told)
            if told is not error and self._log.admits(error):
                logger.exception("failed", exc_info=error)
            let_go(error)
            if exchange.status is None:
                response = error_response(told, exchange.path, exchange.request_id)
                await response(scope, receive, send)
        finally:
            self._tell(exchange)
            request_id.reset(token)

    def _tell(self, exchange: Exchange) -> None:
        """Count an error, trace the request, and log its line."""
        if exchange.error is not None:
            self._metrics.record_error(exchange.error.status)
        if exchange.error is RateLimitError and exchange.reason is not None:
            self._metrics.record_limited(exchange.client.name, Limited(exchange.reason))
        if (use := exchange.total_use) is not None:
            self._record_use(exchange, use)
        self._log.write(exchange, self._trace(exchange))

    def _record_use(self, exchange: Exchange, use: Use) -> None:
        self._metrics.record_use(exchange.client.name, use)
        if self._usage_log is not None:
            self._usage_log.write(usage_record(exchange, use))

    def _trace(self, exchange: Exchange) -> str | None:
        """Return the id of a request's trace; what goes wrong with it is not the request's."""
        # Whoever has no key can send any number of requests, and none of them costs a span.
        if self._tracer is None or exchange.error is AuthenticationError:
            return None
        try:
            return self._tracer.record(exchange)
        except Exception as error:
            if self._log.admits(error):
                logger.exception("no trace")
            return None

    def _wait_seconds(self, exchange: Exchange, headers: MutableHeaders) -> float:
        """Return how long a reply waits for its turn: answers do not, nor do probes."""
        if exchange.path in _UNPACED:
            return 0.0
        if exchange.status in ERROR_STATUSES:
            return self._pace.wait_seconds(_ERROR_SECONDS)
        if exchange.has_started:
            return 0.0
        # Only what is at hand as it is sent has one.
        is_file = "etag" in headers
        return self._pace.wait_seconds(_FILE_SECONDS if is_file else _PAGE_SECONDS)

    def _watched(self, send: Send, exchange: Exchange) -> Send:
        """Return a `send` that notes the status, and completes the headers."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = exchange.request_id
                if is_of_messages(exchange.path):
                    headers["Request-Id"] = exchange.request_id
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
                headers.update(exchange.client.rate_headers)
                if self._admission.is_draining:
                    headers["Connection"] = "close"
                if (seconds := self._wait_seconds(exchange, headers)) > 0:
                    await asyncio.sleep(seconds)
            await send(message)

        return watched
