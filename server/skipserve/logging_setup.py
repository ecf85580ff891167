"""How log lines are written, as text or as JSON, with the id of the request that they are about."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

# Set around each request; whatever is logged meanwhile says it.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# They speak of each connection, or of what our own lines say better.
_NOISY = ("uvicorn", "asyncio")


def set_up_logging(*, as_json: bool) -> None:
    """Write all log lines of this process to its standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


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
