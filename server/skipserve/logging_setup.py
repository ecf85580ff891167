"""How log lines are written, as text or as JSON, with the id of the request that they are about."""

import json
import logging
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import IO

logger = logging.getLogger(__name__)

# Set around each request; whatever is logged meanwhile says it.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# They speak of each connection, or of what our own lines say better.
_NOISY = ("uvicorn", "asyncio")


def set_up_logging(*, as_json: bool) -> None:
    """Write all log lines of this process to its standard error; as JSON, all else too."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
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
