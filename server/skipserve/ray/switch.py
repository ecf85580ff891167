"""An application that can be exchanged for another while requests run. No Ray."""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)
_REQUEST_ID = "x-request-id"


class _Turn:
    """The time in which one application serves.

    Args:
        app: the application.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._lifespan: AbstractAsyncContextManager[object] = app.router.lifespan_context(app)
        self._num_inside = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def begin(self) -> None:
        """Start what belongs to the application."""
        await self._lifespan.__aenter__()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        self._num_inside += 1
        self._idle.clear()
        try:
            await self.app(scope, receive, send)
        finally:
            self._num_inside -= 1
            if not self._num_inside:
                self._idle.set()

    async def end(self) -> None:
        """Close what belongs to the application once the last of its requests has ended."""
        await self._idle.wait()
        await self._lifespan.__aexit__(None, None, None)


class Switch:
    """Passes requests to the application whose turn it is; requests stay where they began.

    Takes our `X-Request-Id` off replies: Ray Serve's proxy adds it, with the same value.

    Args:
        app: the first application.
    """

    def __init__(self, app: FastAPI) -> None:
        self._turn = _Turn(app)
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def app(self) -> FastAPI:
        """The application whose turn it is."""
        return self._turn.app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        given = Headers(scope=scope).get(_REQUEST_ID)
        await self._turn.serve(scope, receive, _without_id(send, given))

    async def exchange(self, app: FastAPI) -> None:
        """Let another application take the requests that come from now on."""
        turn = _Turn(app)
        await turn.begin()
        before, self._turn = self._turn, turn
        ending = asyncio.create_task(before.end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Do what servers ask of an application at its start and its end."""
        await receive()
        await self._turn.begin()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._turn.end()
        await send({"type": "lifespan.shutdown.complete"})


def _without_id(send: Send, given: str | None) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and given is not None:
            headers = MutableHeaders(scope=message)
            if headers.get(_REQUEST_ID) == given:
                del headers[_REQUEST_ID]
        await send(message)

    return sending
