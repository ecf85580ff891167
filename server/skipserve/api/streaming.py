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
_DONE = "[DONE]"


class StreamWriter(Protocol):
    """Puts an answer into the form of a stream; each text is the data of one event, one line."""

    def opening(self) -> Iterable[str]:
        """Return the events that come before the answer."""

    def chunks(self, piece: Piece) -> Iterable[str]:
        """Return the events that a piece of the answer becomes."""


class EventStream(Response):
    """Sends an answer as events and closes its source, whatever happens.

    Written here and not taken from sse-starlette, which ends all streams on SIGTERM: ours go on
    until they are complete.

    Args:
        pieces: the answer; an error that it raises becomes the last event.
        writer: makes pieces events.
        headers: of the reply.
        keep_alive_seconds: a comment is sent so often, so that nothing on the way gives up.
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
        """Send the events, then [DONE]."""
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
            await _send_text(send, ": keep-alive\n\n")

    async def _send_events(self, send: Send) -> None:
        async with contextlib.aclosing(self._pieces):
            await _send_data(send, self._writer.opening())
            while not self._is_over:
                await _send_data(send, await self._next_events())
        await _send_data(send, (_DONE,))

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
            return (error_body(told),)


async def _send_data(send: Send, events: Iterable[str]) -> None:
    for data in events:
        await _send_text(send, f"data: {data}\n\n")


async def _send_text(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
