"""Lines of the log about requests: all that were answered, and of the others few of a kind."""

import asyncio
import logging
from collections.abc import Container
from contextvars import Context

from skipserve.api.exchange import Exchange

logger = logging.getLogger("skipserve.requests")
# Asked for all the time by whatever watches over the server.
_PROBES = frozenset({"/health", "/ready", "/metrics"})


class LineLimit:
    """Lets one line of each kind pass in a period, and says at its end how many did not.

    Args:
        logger: where that is said.
        seconds: the period.
    """

    def __init__(self, logger: logging.Logger, seconds: float = 1.0) -> None:
        self._logger = logger
        self._seconds = seconds
        # Of the kinds whose period runs.
        self._num_left_out: dict[tuple[tuple[str, object], ...], int] = {}

    def admits(self, **kind: object) -> bool:
        """Say whether a line is to be written.

        Args:
            kind: fields of the line that may take few values, whatever clients send.
        """
        key = tuple(kind.items())
        if key in self._num_left_out:
            self._num_left_out[key] += 1
            return False
        self._num_left_out[key] = 0
        # Not about the request that is under way.
        loop = asyncio.get_running_loop()
        loop.call_later(self._seconds, self._tell, key, context=Context())
        return True

    def close(self) -> None:
        """Say what is still to be said."""
        for key in tuple(self._num_left_out):
            self._tell(key)

    def _tell(self, key: tuple[tuple[str, object], ...]) -> None:
        if num_left_out := self._num_left_out.pop(key, 0):
            told = " ".join(str(value) for _, value in key if value is not None)
            self._logger.info(
                "lines left out in a second: %d like %s",
                num_left_out,
                told,
                extra={"fields": dict(key) | {"left_out": num_left_out}},
            )


class AccessLog:
    """Writes a line for each request that was answered, and so many for others as can be read.

    Args:
        paths: those that there are; all others are of one kind.
    """

    def __init__(self, paths: Container[str] = ()) -> None:
        self._paths = paths
        self._limit = LineLimit(logger)

    def write(self, exchange: Exchange, trace_id: str | None) -> None:
        """Write the line of a request that has ended."""
        is_routine = exchange.status == 200 and exchange.path in _PROBES
        if not is_routine and not self._is_due(exchange):
            return
        logger.log(
            logging.DEBUG if is_routine else logging.INFO,
            "%s",
            exchange,
            extra={"fields": exchange.describe() | ({"trace_id": trace_id} if trace_id else {})},
        )

    def admits(self, error: Exception) -> bool:
        """Say whether the traceback of what is no fault of a client's is to be written."""
        return self._limit.admits(exception=type(error).__name__)

    def close(self) -> None:
        """Say what was left out last."""
        self._limit.close()

    def _is_due(self, exchange: Exchange) -> bool:
        # It had its place in the engine, and there is no flood of those.
        if exchange.has_started and exchange.status == 200:
            return True
        return self._limit.admits(
            path=exchange.path if exchange.path in self._paths else None,
            status=exchange.status,
            error=exchange.error_type,
            reason=exchange.reason,
        )
