"""Tests of how many lines requests may write."""

import asyncio
import logging
import threading
from typing import Any

import pytest
from live_server import THREAD_NAME

from skipserve.api.access_log import AccessLog, LineLimit
from skipserve.api.exchange import Exchange
from skipserve.errors import AuthenticationError, SkipserveError

pytestmark = pytest.mark.fast


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "skipserve.requests")
    return caplog


def exchange_of(
    path: str, status: int | None, error: SkipserveError | None = None, method: str = "GET"
) -> Exchange:
    exchange = Exchange({"type": "http", "method": method, "path": path, "headers": []})
    exchange.status = status
    if error is not None:
        exchange.fail(error)
    return exchange


class Answered(Exchange):
    """As one that had its place in the engine."""

    has_started = True

    def describe(self) -> dict[str, object]:
        return {}

    def __str__(self) -> str:
        return "answered"


def test_a_flood_writes_a_line_and_what_was_left_out(log_lines: pytest.LogCaptureFixture) -> None:
    async def flood() -> None:
        log = AccessLog({"/v1/models"})
        for index in range(1000):
            path = "/v1/models" if index % 2 else f"/{index}"
            log.write(exchange_of(path, 401, AuthenticationError("no"), method=f"M{index}"), None)
        log.close()
        log.close()

    asyncio.run(flood())
    first, second, *left_out = (record.getMessage() for record in log_lines.records)
    assert first.startswith("M0 /0 401 ")
    assert second.startswith("M1 /v1/models 401 ")
    assert left_out == [
        "lines left out in a second: 499 like 401 authentication_error",
        "lines left out in a second: 499 like /v1/models 401 authentication_error",
    ]
    assert [vars(record)["fields"].get("left_out") for record in log_lines.records] == [
        None,
        None,
        499,
        499,
    ]


def test_what_a_shared_server_logs_is_not_the_tests(log_lines: pytest.LogCaptureFixture) -> None:
    for name in (THREAD_NAME, "another"):
        logger = logging.getLogger("skipserve.requests")
        thread = threading.Thread(target=logger.info, args=(name,), name=name)
        thread.start()
        thread.join()
    assert log_lines.messages == ["another"]


def test_every_answer_has_its_line(log_lines: pytest.LogCaptureFixture) -> None:
    async def answer() -> None:
        log = AccessLog()
        for _ in range(5):
            exchange = Answered({"type": "http", "method": "POST", "path": "/", "headers": []})
            exchange.status = 200
            log.write(exchange, "a-trace")
        log.close()

    asyncio.run(answer())
    assert [record.getMessage() for record in log_lines.records] == ["answered"] * 5
    assert all(vars(record)["fields"] == {"trace_id": "a-trace"} for record in log_lines.records)


def test_of_probes_that_succeed_nothing_is_said(log_lines: pytest.LogCaptureFixture) -> None:
    async def probe() -> None:
        log = AccessLog({"/health", "/ready", "/metrics"})
        for path in ("/health", "/ready", "/metrics") * 5:
            log.write(exchange_of(path, 200), None)
        log.close()

    asyncio.run(probe())
    assert not log_lines.records


def test_kinds_do_not_hide_each_other(log_lines: pytest.LogCaptureFixture) -> None:
    kinds: list[tuple[int | None, SkipserveError | None]] = [
        (401, AuthenticationError("no")),
        (500, SkipserveError("no")),
        (503, SkipserveError("no", reason="queue_full")),
        (503, SkipserveError("no", reason="draining")),
        (200, None),
        (None, None),
    ]

    async def ask() -> None:
        log = AccessLog({"/metrics"})
        for status, error in kinds * 3:
            log.write(exchange_of("/version", status, error), None)

    asyncio.run(ask())
    assert len(log_lines.records) == len(kinds)


def test_a_kind_is_written_again_in_the_next_second(log_lines: pytest.LogCaptureFixture) -> None:
    async def ask() -> list[bool]:
        limit = LineLimit(logging.getLogger("skipserve.requests"), seconds=0)
        admitted = [limit.admits(status=401), limit.admits(status=401)]
        while not log_lines.records:
            await asyncio.sleep(0)
        return [*admitted, limit.admits(status=401)]

    assert asyncio.run(ask()) == [True, False, True]
    (record,) = log_lines.records
    assert record.getMessage() == "lines left out in a second: 1 like 401"
    fields: dict[str, Any] = vars(record)["fields"]
    assert fields == {"status": 401, "left_out": 1}
