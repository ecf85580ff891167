"""Lines of the log, in both forms."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skipserve.logging_setup import (
    JsonFormatter,
    OncePerKind,
    TextFormatter,
    relay_lines,
    request_id,
)

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


_UNCAUGHT = """
import gc, threading, warnings
from skipserve.logging_setup import set_up_logging

class Stubborn:
    def __del__(self):
        raise ValueError("in a destructor")

set_up_logging(as_json=True)
warnings.warn("first\\nsecond")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
Stubborn()
gc.collect()
raise KeyError("at the end")
"""


def test_what_python_itself_would_print_is_json() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNCAUGHT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["WARNING", "CRITICAL", "CRITICAL", "CRITICAL"]
    assert "UserWarning: first\nsecond" in lines[0]["message"]
    told = ["ZeroDivisionError: ", "ValueError: in a destructor", "KeyError: 'at the end'"]
    for line, words in zip(lines[1:], told, strict=True):
        assert line["message"].startswith(words)
        assert "Traceback" in line["exception"]


def test_lines_of_another_process_are_passed_on_as_json(caplog: pytest.LogCaptureFixture) -> None:
    theirs = JsonFormatter().format(_record())
    deep = '{"a":' * 100_000
    printed = [theirs, "", "Traceback:", '{"cut": ', deep, "[1]", "caf\u00e9"]
    stream = io.BytesIO("\n".join(printed).encode() + b" \xff\n")
    with caplog.at_level(logging.INFO):
        relay_lines(stream)
    assert stream.closed
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert lines[0] == theirs
    others = [json.loads(line) for line in lines[1:]]
    messages = [line["message"] for line in others]
    assert messages == ["Traceback:", '{"cut":', deep, "[1]", "caf\u00e9 \ufffd"]
    assert {line["level"] for line in others} == {"WARNING"}


def _of_library(line: int, message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("PIL").makeRecord(
        "PIL", logging.WARNING, "plugin.py", line, message, (), None, extra=extra
    )


def test_what_libraries_write_passes_once_a_kind_and_minute() -> None:
    now = 1000.0
    once = OncePerKind(lambda: now)
    assert once.filter(_of_library(1, "tag 1 is broken"))
    assert not any(once.filter(_of_library(1, f"tag {tag} is broken")) for tag in range(2, 9))
    assert once.filter(_of_library(2, "another"))
    assert once.filter(_of_library(1, "a warning's", kind=("exif.py", 7, UserWarning)))
    assert not once.filter(_of_library(5, "a warning's", kind=("exif.py", 7, UserWarning)))
    now += 60
    again = _of_library(1, "tag 9 is broken")
    assert once.filter(again)
    assert again.getMessage() == "tag 9 is broken (and 7 more of this kind before)"
    now += 60
    assert once.filter(again)


def test_our_own_lines_always_pass() -> None:
    once = OncePerKind(lambda: 0.0)
    assert all(once.filter(_record()) for _ in range(3))


def test_errors_of_other_types_are_other_kinds() -> None:
    once = OncePerKind(lambda: 0.0)
    for error in (ValueError("a"), KeyError("b")):
        record = _of_library(1, "failed")
        record.exc_info = (type(error), error, None)
        assert once.filter(record)


def test_warnings_are_lines_of_the_log() -> None:
    code = """
import warnings
from skipserve.logging_setup import set_up_logging
set_up_logging(as_json=True)
warnings.simplefilter("always")
for index in range(9):
    warnings.warn(f"number {index}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    [line] = done.stderr.splitlines()
    assert json.loads(line)["message"] == "<string>:7: UserWarning: number 0"
