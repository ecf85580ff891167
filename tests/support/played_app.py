"""The application with an engine that is played: what is asked of it, without a process."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import httpx
from fastapi import FastAPI
from pictures import question

from skipserve.api.admission import Admission
from skipserve.app import build
from skipserve.engine.reports import FinishReason, Ready, StepOutput
from skipserve.engine.request import Request
from skipserve.service.service import OnTaken
from skipserve.settings import Settings

CHAT = "/v1/chat/completions"
Asking = Callable[..., Coroutine[Any, Any, httpx.Response]]


class PlayedService:
    """Takes requests as the engine's service does; answers with two tokens, or with an error."""

    def __init__(
        self, num_cache_tokens: int = 4096, error: Exception | None = None, num_cached: int = 0
    ) -> None:
        self.ready = Ready("cpu", "float32", "ab", num_cache_tokens)
        self.why_not_ready = None
        self.num_running = self.num_waiting = 0
        self.requests: list[Request] = []
        self.may_begin, self.may_end = asyncio.Event(), asyncio.Event()
        self._error = error
        self._num_cached = num_cached

    def let_run(self) -> None:
        self.may_begin.set()
        self.may_end.set()

    async def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        self.requests.append(request)
        if on_taken is not None:
            on_taken("")
        await self.may_begin.wait()
        if self._error is not None:
            raise self._error
        yield StepOutput(request.id, 20, num_cached_tokens=self._num_cached)
        await self.may_end.wait()
        yield StepOutput(request.id, 21, finish_reason=FinishReason.LENGTH)


def app_with(service: PlayedService, settings: Settings) -> FastAPI:
    """Return the application with an engine that is played."""
    built = build(settings)
    metrics = built.serving.metrics
    parts: Any = {
        "service": service,
        "admission": Admission(service, metrics, 20, settings.max_queued_tokens),  # type: ignore[arg-type]
    }
    serving = built.app.state.serving = replace(built.serving, **parts)
    serving.processor.auto.watch(serving.surroundings)
    return built.app


def has_queue(app: FastAPI) -> bool:
    """Return whether prompt tokens wait."""
    return bool(app.state.serving.admission._tokens.num_tokens)


def play(app: FastAPI, scenario: Callable[[Asking], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario that asks the application."""

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:

            async def ask(key: str = "", **fields: object) -> httpx.Response:
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                return await client.post(CHAT, json=question("Hi", **fields), headers=headers)

            await scenario(ask)

    asyncio.run(run())
