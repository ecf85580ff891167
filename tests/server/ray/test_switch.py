"""An application that is exchanged while requests run."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from starlette.types import Message

from skipserve.ray.switch import Switch

pytestmark = pytest.mark.fast


class Played:
    """An application that says its name once it is let."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.go = asyncio.Event()
        self.num_inside = 0

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
            log.append(f"{name} begins")
            yield
            log.append(f"{name} ends")

        self.app = FastAPI(lifespan=lifespan)

        @self.app.get("/")
        async def answer() -> Response:
            self.num_inside += 1
            await self.go.wait()
            return Response(name, headers={"X-Request-Id": "given"})


class Life:
    """What a server asks of an application at its start and its end."""

    def __init__(self, switch: Switch) -> None:
        self._asked: asyncio.Queue[Message] = asyncio.Queue()
        self.told: asyncio.Queue[Message] = asyncio.Queue()
        self._living = asyncio.create_task(
            switch({"type": "lifespan"}, self._asked.get, self.told.put)
        )

    async def say(self, what: str) -> None:
        await self._asked.put({"type": f"lifespan.{what}"})
        assert (await self.told.get())["type"] == f"lifespan.{what}.complete"


def _client(switch: Switch) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(switch), base_url="http://there")


async def _until(played: Played, num_inside: int) -> None:
    while played.num_inside < num_inside:
        await asyncio.sleep(0)


def _run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_requests_stay_where_they_began() -> None:
    async def scenario() -> None:
        log: list[str] = []
        first, second = Played("first", log), Played("second", log)
        switch = Switch(first.app)
        life = Life(switch)
        await life.say("startup")
        async with _client(switch) as client:
            early = asyncio.create_task(client.get("/"))
            await _until(first, 1)
            await switch.exchange(second.app)
            assert switch.app is second.app
            late = asyncio.create_task(client.get("/"))
            await _until(second, 1)
            assert log == ["first begins", "second begins"]
            first.go.set()
            assert (await early).text == "first"
            while "first ends" not in log:
                await asyncio.sleep(0)
            second.go.set()
            assert (await late).text == "second"
        await life.say("shutdown")
        assert log == ["first begins", "second begins", "first ends", "second ends"]

    _run(scenario())


def test_an_application_that_does_not_start_changes_nothing() -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        raise ZeroDivisionError
        yield

    async def scenario() -> None:
        log: list[str] = []
        first = Played("first", log)
        switch = Switch(first.app)
        with pytest.raises(ZeroDivisionError):
            await switch.exchange(FastAPI(lifespan=lifespan))
        assert switch.app is first.app

    _run(scenario())


@pytest.mark.parametrize(("given", "expected"), [("given", None), ("other", "given")])
def test_the_proxy_tells_the_requests_id(given: str, expected: str | None) -> None:
    async def scenario() -> None:
        played = Played("first", [])
        played.go.set()
        async with _client(Switch(played.app)) as client:
            reply = await client.get("/", headers={"X-Request-Id": given})
        assert reply.headers.get("X-Request-Id") == expected

    _run(scenario())
