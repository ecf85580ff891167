"""Tests of what the route of chat completions asks of the engine, which is played here."""

import asyncio
import json
import logging

import pytest
from fastapi import FastAPI
from played_app import Asking, PlayedService, app_with, has_queue, play

from skipserve.errors import (
    EngineError,
    RequestTimeoutError,
    SkipserveError,
    UnavailableError,
)
from skipserve.settings import Settings

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("isolates", [False, None, True])
def test_keys_share_a_cache_unless_they_are_isolated(
    settings: Settings, isolates: bool | None
) -> None:
    service = PlayedService()
    keyed = {"api_key": "one,two", "isolate_keys": isolates}
    app = app_with(service, Settings(**settings.model_dump() | keyed))

    async def scenario(ask: Asking) -> None:
        service.let_run()
        for key in ("one", "two", "one"):
            assert (await ask(key)).status_code == 200

    play(app, scenario)
    first, second, again = (request.cache_salt for request in service.requests)
    assert first == again
    assert (first != second) == (isolates is not False)
    assert ("" in {first, second}) == (isolates is False)


def test_the_answer_fits_what_the_engine_holds(settings: Settings) -> None:
    service = PlayedService(num_cache_tokens=100)
    app = app_with(service, settings)

    async def scenario(ask: Asking) -> None:
        service.let_run()
        assert (await ask(max_tokens=None)).status_code == 200
        [request] = service.requests
        num_left = 100 - request.num_prompt
        assert request.sampling.max_tokens == num_left
        assert (await ask(max_tokens=num_left + 1)).status_code == 200
        assert service.requests[-1].sampling.max_tokens == num_left

    play(app, scenario)


def test_times_are_handed_on(settings: Settings) -> None:
    service = PlayedService()
    app = app_with(service, settings)

    async def scenario(ask: Asking) -> None:
        service.let_run()
        await ask()
        await ask(timeout_seconds=1.5)

    play(app, scenario)
    assert [r.deadline_seconds for r in service.requests] == [600.0, 1.5]
    assert [r.queue_seconds for r in service.requests] == [60.0, 60.0]


def test_prompt_tokens_wait_until_the_first_token(settings: Settings) -> None:
    service = PlayedService()
    app = app_with(service, settings.model_copy(update={"max_queued_tokens": 1}))

    async def scenario(ask: Asking) -> None:
        first = asyncio.create_task(ask())
        while not service.requests:
            await asyncio.sleep(0)
        refused = await ask()
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["type"] == "overloaded_error"
        service.may_begin.set()
        while has_queue(app):
            await asyncio.sleep(0)
        second = asyncio.create_task(ask())
        while len(service.requests) < 2:
            await asyncio.sleep(0)
        service.may_end.set()
        assert [(await each).status_code for each in (first, second)] == [200, 200]

    play(app, scenario)


@pytest.mark.parametrize(
    ("error", "status"),
    [(RequestTimeoutError("too long"), 408), (EngineError("it failed"), 500)],
)
def test_errors_of_the_engine_have_their_status(
    settings: Settings, error: SkipserveError, status: int
) -> None:
    service = PlayedService(error=error)
    app = app_with(service, settings.model_copy(update={"max_queued_tokens": 1}))

    async def scenario(ask: Asking) -> None:
        service.let_run()
        # Twice: what failed does not wait any more.
        for _ in range(2):
            reply = await ask()
            assert reply.status_code == status
            assert reply.json()["error"]["message"] == error.message

    play(app, scenario)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "name", "reason"),
    [
        (EngineError("it failed", reason="engine"), 500, "server_error", "engine"),
        (UnavailableError("full", reason="queue_full"), 503, "overloaded_error", "queue_full"),
        (RequestTimeoutError("late", reason="deadline"), 408, "timeout_error", "deadline"),
        (ZeroDivisionError(), 500, "server_error", None),
    ],
)
def test_an_error_is_counted_once_and_logged_wherever_it_is_told(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    streams: bool,
    error: Exception,
    status: int,
    name: str,
    reason: str | None,
) -> None:
    service = PlayedService(error=error)
    app = app_with(service, settings)
    caplog.set_level(logging.INFO, "skipserve.requests")

    async def scenario(ask: Asking) -> None:
        service.let_run()
        reply = await ask(stream=streams)
        assert reply.status_code == (200 if streams else status)
        told = reply.text.split("data: ")[-2] if streams else reply.text
        assert json.loads(told)["error"]["code"] == status

    play(app, scenario)
    assert errors_told(app) == {str(status): 1}
    (line,) = (vars(record)["fields"] for record in caplog.records if hasattr(record, "fields"))
    assert (line["error"], line["reason"], line["finish_reason"]) == (name, reason, None)


def errors_told(app: FastAPI) -> dict[str, float]:
    """Return how many errors were counted, by status."""
    return {
        sample.labels["code"]: sample.value
        for family in app.state.serving.registry.collect()
        for sample in family.samples
        if sample.name == "skipserve_errors_total" and sample.value
    }
