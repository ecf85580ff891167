"""How log lines are written, as text or as JSON, with the id of the request that they are about."""

import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import IO

logger = logging.getLogger(__name__)

# Set around each request; whatever is logged meanwhile says it.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_OURS = "skipserve"
_PERIOD_SECONDS = 60.0

# They speak of each connection, or of what our own lines say better.
_NOISY = ("uvicorn", "asyncio")


def set_up_logging(*, as_json: bool) -> None:
    """Write all log lines of this process to its standard error; as JSON, all else too."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(_TEXT))
    handler.addFilter(OncePerKind())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.showwarning = _log_warning
    if as_json:
        _log_what_is_uncaught()


def _log_what_is_uncaught() -> None:
    """Write tracebacks that Python would print as log lines."""
    logging.raiseExceptions = False
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda it: _log_uncaught(it.exc_type, it.exc_value, it.exc_traceback)
    sys.unraisablehook = lambda it: _log_uncaught(it.exc_type, it.exc_value, it.exc_traceback)


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    logger.critical("%s: %s", kind.__name__, error, exc_info=(kind, error or kind(), traceback))


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Write what Python would print, and say where it comes from: that is its kind."""
    kind = filename, lineno, category
    logging.getLogger("py.warnings").warning(
        "%s:%d: %s: %s", filename, lineno, category.__name__, message, extra={"kind": kind}
    )


class OncePerKind(logging.Filter):
    """Lets what libraries write pass once a minute for each place in their code.

    What they write may be up to clients: of one picture it was a hundred thousand lines.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        # When each kind was written last, and how often it was held back since.
        self._written: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is written; one that is says how many of its kind were not."""
        if record.name.partition(".")[0] == _OURS:
            return True
        kind = getattr(record, "kind", (record.pathname, record.lineno, _error_type(record)))
        now = self._clock()
        written_at, num_held_back = self._written.get(kind, (-_PERIOD_SECONDS, 0))
        if now - written_at < _PERIOD_SECONDS:
            self._written[kind] = written_at, num_held_back + 1
            return False
        self._written[kind] = now, 0
        if num_held_back:
            record.msg = f"{record.getMessage()} (and {num_held_back} more of this kind before)"
            record.args = ()
        return True


def _error_type(record: logging.LogRecord) -> type[BaseException] | None:
    return record.exc_info[0] if record.exc_info else None


def relay_lines(stream: IO[bytes]) -> None:
    """Log what a process prints until it ends: its own log lines as they are, all else as messages.

    Args:
        stream: the other end of its output; closed at the end.
    """
    with stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            if text.startswith("{") and _is_json(text):
                logger.info(text, extra={"is_line": True})
            elif text:
                logger.warning("%s", text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class TextFormatter(logging.Formatter):
    """Writes each record as a line, the request's id before the message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without what follows an exception."""
        about = request_id.get()
        record.message = f"{about} {record.message}" if about else record.message
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """Writes each record as one JSON object, with the `fields` that it carries."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        if getattr(record, "is_line", False):
            return str(record.msg)
        time = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (about := request_id.get()) is not None:
            line["request_id"] = about
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(getattr(record, "fields", {}) | line, default=str)
