"""Server-sent events: an answer as it grows, and errors after the headers are gone."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from skipserve.api.errors import error_body, to_skipserve_error
from skipserve.asking.answer import Piece
from skipserve.errors import SkipserveError

logger = logging.getLogger(__name__)


def event(data: str, name: str | None = None) -> str:
    """Return an event as it is sent; its data is one line."""
    return f"data: {data}\n\n" if name is None else f"event: {name}\ndata: {data}\n\n"


class StreamWriter(Protocol):
    """Puts an answer into the form of a stream: the texts are events as they are sent."""

    @property
    def sign_of_life(self) -> str:
        """What is sent where nothing happens, so that nothing on the way gives up."""

    @property
    def closing(self) -> Iterable[str]:
        """The last events, after an error too."""

    def opening(self) -> Iterable[str]:
        """Return the events that come before the answer."""

    def chunks(self, piece: Piece) -> Iterable[str]:
        """Return the events that a piece of the answer becomes."""

    def failure(self, error: SkipserveError) -> Iterable[str]:
        """Return the events that tell of an error, after which no piece comes."""


class DataEvents:
    """What OpenAI's streams of chunks have in common: events without names, and [DONE]."""

    sign_of_life: str = ": keep-alive\n\n"
    closing: tuple[str, ...] = (event("[DONE]"),)

    def failure(self, error: SkipserveError) -> tuple[str, ...]:
        """Return an error in the place of a chunk."""
        return (event(error_body(error)),)


class EventStream(Response):
    """Sends an answer as events and closes its source, whatever happens.

    Written here and not taken from sse-starlette, which ends all streams on SIGTERM: ours go on
    until they are complete.

    Args:
        pieces: the answer; an error that it raises becomes the last event.
        writer: makes pieces events.
        headers: of the reply.
        keep_alive_seconds: a sign of life is sent so often.
        on_error: hears of such an error before the client does.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[Piece, None],
        writer: StreamWriter,
        headers: Mapping[str, str],
        keep_alive_seconds: float,
        on_error: Callable[[SkipserveError], None],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._pieces = pieces
        self._writer = writer
        self._is_over = False
        self._keep_alive_seconds = keep_alive_seconds
        self._on_error = on_error
        self.init_headers({"X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        beat = asyncio.create_task(self._keep_alive(send))
        try:
            await self._send_events(send)
        finally:
            beat.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._keep_alive_seconds)
            await _send_text(send, self._writer.sign_of_life)

    async def _send_events(self, send: Send) -> None:
        async with contextlib.aclosing(self._pieces):
            await _send_all(send, self._writer.opening())
            while not self._is_over:
                await _send_all(send, await self._next_events())
        await _send_all(send, self._writer.closing)

    async def _next_events(self) -> Iterable[str]:
        """Return the events of the next piece: none at the end, that of the error at an error."""
        try:
            return self._writer.chunks(await anext(self._pieces))
        except StopAsyncIteration:
            self._is_over = True
            return ()
        except Exception as error:
            self._is_over = True
            told = to_skipserve_error(error)
            if told is not error:
                logger.exception("a stream failed")
            self._on_error(told)
            return self._writer.failure(told)


async def _send_all(send: Send, events: Iterable[str]) -> None:
    for text in events:
        await _send_text(send, text)


async def _send_text(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
