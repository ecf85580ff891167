"""Tests of what stands around every request."""

import asyncio
import gc
import logging
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from skipserve import errors
from skipserve.api.admission import Admission
from skipserve.api.exchange import Exchange
from skipserve.api.guard import Guard, Tracer
from skipserve.api.pace import Pace
from skipserve.engine.limits import EngineSpec
from skipserve.errors import AuthenticationError, SkipserveError, UnavailableError
from skipserve.metrics.registry import ServerMetrics
from skipserve.service.local import EngineService

pytestmark = pytest.mark.fast


async def _fine(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("fine")(scope, receive, send)


async def _unready(scope: Scope, receive: Receive, send: Send) -> None:
    raise UnavailableError("not yet")


def _guard(app: ASGIApp, metrics: ServerMetrics, tracer: Tracer | None = None) -> Guard:
    service = EngineService(EngineSpec(Path("nowhere")))
    return Guard(app, metrics, Admission(service, metrics, 1, 1), Pace(1.0), tracer)


async def _get(guard: Guard, path: str) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(guard), base_url="http://server"
    ) as client:
        return await client.get(path)


@pytest.mark.parametrize("path", ["/ready", "/health", "/metrics", "/v1/models"])
@pytest.mark.parametrize("app", [_fine, _unready])
def test_only_probes_that_succeed_are_silent(
    app: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = _guard(app, ServerMetrics(CollectorRegistry(), "tiny", ()))
    caplog.set_level(logging.DEBUG, "skipserve.requests")
    asyncio.run(_get(guard, path))
    (record,) = (it for it in caplog.records if it.name == "skipserve.requests")
    is_silent = app is _fine and path != "/v1/models"
    assert record.levelno == (logging.DEBUG if is_silent else logging.INFO)


class _Body:
    pass


def test_what_an_error_has_ended_leaves_nothing_behind() -> None:
    """Not even where the calls hold the error that holds them."""
    bodies: list[weakref.ref[_Body]] = []

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body()
        bodies.append(weakref.ref(body))
        fault = UnavailableError("not yet")
        raise fault from ValueError("no")

    guard = _guard(fails, ServerMetrics(CollectorRegistry(), "tiny", ()))
    gc.disable()
    try:
        asyncio.run(_get(guard, "/v1/models"))
        assert [body() for body in bodies] == [None]
    finally:
        gc.enable()


async def _locked(scope: Scope, receive: Receive, send: Send) -> None:
    raise AuthenticationError("no key")


class _Tracer:
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.statuses: list[int | None] = []

    def record(self, exchange: Exchange) -> str | None:
        self.statuses.append(exchange.status)
        return "a-trace"

    def close(self) -> None:
        pass


def test_a_request_without_a_key_is_counted_and_logged_but_not_traced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry, tracer = CollectorRegistry(), _Tracer()
    metrics = ServerMetrics(registry, "tiny", ())
    caplog.set_level(logging.INFO, "skipserve.requests")
    for app in (_locked, _unready, _fine):
        asyncio.run(_get(_guard(app, metrics, tracer), "/v1/models"))
    assert tracer.statuses == [503, 200]
    fields = [vars(record)["fields"] for record in caplog.records]
    assert [it["status"] for it in fields] == [401, 503, 200]
    assert ["trace_id" in it for it in fields] == [False, True, True]
    labels = {"model": "tiny", "code": "401"}
    assert registry.get_sample_value("skipserve_errors_total", labels) == 1


def test_every_error_of_the_tree_is_counted_from_the_start() -> None:
    registry = CollectorRegistry()
    _guard(_fine, ServerMetrics(registry, "tiny", ()))
    kinds = (it for it in vars(errors).values() if isinstance(it, type))
    for kind in kinds:
        if issubclass(kind, SkipserveError):
            labels = {"model": "tiny", "code": str(kind.status)}
            assert registry.get_sample_value("skipserve_errors_total", labels) == 0, kind


class _BrokenTracer:
    def record(self, exchange: Exchange) -> str | None:
        raise RuntimeError("no collector")

    def close(self) -> None:
        pass


def test_a_trace_that_fails_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    metrics = ServerMetrics(CollectorRegistry(), "tiny", ())
    caplog.set_level(logging.INFO, "skipserve.requests")
    asyncio.run(_get(_guard(_fine, metrics, _BrokenTracer()), "/v1/models"))
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "no trace"
    assert messages[1].startswith("GET /v1/models 200 ")


def test_long_methods_are_cut() -> None:
    scope = {"type": "http", "method": "M" * 5000, "path": "/", "headers": []}
    assert Exchange(scope).describe()["method"] == "M" * 20


class _Till(Pace):
    """Notes what is charged, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.charged: list[float] = []

    def wait_seconds(self, cost_seconds: float) -> float:
        self.charged.append(cost_seconds)
        return 0.0


@pytest.mark.parametrize(
    ("app", "path", "num_charged"),
    [(_fine, "/health", 0), (_unready, "/ready", 0), (_fine, "/metrics", 1), (_unready, "/x", 1)],
)
def test_what_the_engine_has_no_part_in_is_paid_for(
    app: ASGIApp, path: str, num_charged: int
) -> None:
    metrics, till = ServerMetrics(CollectorRegistry(), "m", []), _Till()
    service = EngineService(EngineSpec(Path("nowhere")))
    asyncio.run(_get(Guard(app, metrics, Admission(service, metrics, 1, 1), till), path))
    assert len(till.charged) == num_charged


class _Costs(Pace):
    """Remembers what each reply was said to cost, and lets none wait."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.seconds: list[float] = []

    def wait_seconds(self, cost_seconds: float) -> float:
        self.seconds.append(cost_seconds)
        return 0.0


async def _file(scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"ETag": '"1"', "Cache-Control": "no-cache"}
    await Response("a file", headers=headers)(scope, receive, send)


def test_files_cost_less_than_lists_and_say_how_they_are_kept() -> None:
    metrics, costs = ServerMetrics(CollectorRegistry(), "tiny", ()), _Costs()
    replies = []
    for app in (_fine, _file):
        service = EngineService(EngineSpec(Path("nowhere")))
        guard = Guard(app, metrics, Admission(service, metrics, 1, 1), costs)
        replies.append(asyncio.run(_get(guard, "/some")))
    assert [reply.headers["Cache-Control"] for reply in replies] == ["no-store", "no-cache"]
    page, file = costs.seconds
    assert 0 < file < page
