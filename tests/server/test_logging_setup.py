"""Lines of the log, in both forms."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skipserve.logging_setup import JsonFormatter, TextFormatter, request_id

pytestmark = pytest.mark.fast


def _record(message: str = "%s is here", **extra: object) -> logging.LogRecord:
    record = logging.getLogger("skipserve.test").makeRecord(
        "skipserve.test", logging.WARNING, "file.py", 1, message, ("Ada",), None, extra=extra
    )
    record.created = 1_700_000_000.25
    return record


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(_record("%s\nis \u00e9l\u00e8ve"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "WARNING",
        "logger": "skipserve.test",
        "message": "Ada\nis \u00e9l\u00e8ve",
    }
    assert datetime.fromisoformat(json.loads(line)["time"]) == datetime.fromtimestamp(
        1_700_000_000.25, UTC
    )


def test_json_carries_fields_and_exceptions() -> None:
    record = _record(fields={"status": 200, "skip_policy": "full", "path": Path("x"), "level": "?"})
    try:
        raise ValueError("broken")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    line = json.loads(JsonFormatter().format(record))
    assert (line["status"], line["skip_policy"]) == (200, "full")
    assert "ValueError: broken" in line["exception"]
    assert (line["path"], line["level"]) == ("x", "WARNING")


def test_each_line_says_whose_request_it_is_about() -> None:
    text, as_json = TextFormatter("%(levelname)s %(message)s"), JsonFormatter()

    async def log(name: str | None) -> tuple[str, str | None]:
        if name is not None:
            request_id.set(name)
        await asyncio.sleep(0)
        line = json.loads(await asyncio.to_thread(as_json.format, _record()))
        return text.format(_record()), line.get("request_id")

    async def scenario() -> list[tuple[str, str | None]]:
        return list(await asyncio.gather(log("req-1"), log(None), log("req-2")))

    assert asyncio.run(scenario()) == [
        ("WARNING req-1 Ada is here", "req-1"),
        ("WARNING Ada is here", None),
        ("WARNING req-2 Ada is here", "req-2"),
    ]
