"""Tests of what stands around every request."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from skipserve.api.exchange import Exchange
from skipserve.api.guard import Guard
from skipserve.errors import UnavailableError
from skipserve.metrics.registry import ServerMetrics

pytestmark = pytest.mark.fast


async def _fine(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("fine")(scope, receive, send)


async def _unready(scope: Scope, receive: Receive, send: Send) -> None:
    raise UnavailableError("not yet")


async def _get(guard: Guard, path: str) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(guard), base_url="http://server"
    ) as client:
        await client.get(path)


@pytest.mark.parametrize("path", ["/ready", "/health", "/metrics", "/v1/models"])
@pytest.mark.parametrize("app", [_fine, _unready])
def test_only_probes_that_succeed_are_silent(
    app: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(app, ServerMetrics(CollectorRegistry(), "tiny", ()))
    caplog.set_level(logging.DEBUG, "skipserve.requests")
    asyncio.run(_get(guard, path))
    (record,) = (it for it in caplog.records if it.name == "skipserve.requests")
    is_silent = app is _fine and path != "/v1/models"
    assert record.levelno == (logging.DEBUG if is_silent else logging.INFO)


class _BrokenTracer:
    def record(self, exchange: Exchange) -> str | None:
        raise RuntimeError("no collector")

    def close(self) -> None:
        pass


def test_a_trace_that_fails_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    metrics = ServerMetrics(CollectorRegistry(), "tiny", ())
    caplog.set_level(logging.INFO, "skipserve.requests")
    asyncio.run(_get(Guard(_fine, metrics, _BrokenTracer()), "/v1/models"))
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "no trace"
    assert messages[1].startswith("GET /v1/models 200 ")
