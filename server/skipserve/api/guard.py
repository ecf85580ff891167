"""Around every request: its id, one line in the log, and a reply whatever goes wrong inside."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skipserve.api.errors import error_response, to_skipserve_error
from skipserve.metrics.registry import ServerMetrics

logger = logging.getLogger("skipserve.requests")
# Asked for all the time by whatever watches over the server.
_PROBES = frozenset({"/health", "/ready", "/metrics"})
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Guard:
    """The outermost of our layers.

    A client's `X-Request-Id` is echoed where it is harmless, and used for nothing else.

    Args:
        app: what comes next.
        metrics: counts replies with an error.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; answer with an error of the one form where it raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the last line of defence
            await self._answer(error, exchange, scope, receive)
        finally:
            self._log(exchange)

    async def _answer(
        self, error: Exception, exchange: "_Exchange", scope: Scope, receive: Receive
    ) -> None:
        if to_skipserve_error(error) is not error:
            logger.exception("%s failed", exchange.request_id, exc_info=error)
        if exchange.status is None:
            await error_response(error)(scope, receive, exchange.send)

    def _log(self, exchange: "_Exchange") -> None:
        status = exchange.status
        if status is not None and status >= 400:
            self._metrics.record_error(status)
        is_routine = status == 200 and exchange.path in _PROBES
        logger.log(
            logging.DEBUG if is_routine else logging.INFO,
            "%s %s %s %s %.3f s",
            exchange.request_id,
            exchange.method,
            exchange.path,
            status or "cut off",
            time.perf_counter() - exchange.arrived,
        )


class _Exchange:
    """One request and what is known of its reply; `status` is None until the reply begins."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.request_id = given if _CLIENT_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        self.method = scope["method"]
        self.path = ascii(scope["path"])[1:-1][:200]
        self.arrived = time.perf_counter()
        self.status: int | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass a message on, the request id among its headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-Id"] = self.request_id
        await self._send(message)
