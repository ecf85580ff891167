"""Server-sent events: an answer as it grows, and errors after the headers are gone."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from skipserve.api.errors import error_body, to_skipserve_error
from skipserve.errors import SkipserveError

logger = logging.getLogger(__name__)
_DONE = "[DONE]"


class EventStream(Response):
    """Sends each item as one event and closes the source, whatever happens.

    Written here and not taken from sse-starlette, which ends all streams on SIGTERM: ours go on
    until they are complete.

    Args:
        events: the data of the events, each one line; errors that it raises become an event.
        headers: of the reply.
        keep_alive_seconds: a comment is sent so often, so that nothing on the way gives up.
        on_error: hears of such an error before the client does.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[str, None],
        headers: Mapping[str, str],
        keep_alive_seconds: float,
        on_error: Callable[[SkipserveError], None],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._events = events
        self._keep_alive_seconds = keep_alive_seconds
        self._on_error = on_error
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, then [DONE]."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        beat = asyncio.create_task(self._keep_alive(send))
        try:
            async with contextlib.aclosing(self._with_errors()) as events:
                async for data in events:
                    await _send_text(send, f"data: {data}\n\n")
        finally:
            beat.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._keep_alive_seconds)
            await _send_text(send, ": keep-alive\n\n")

    async def _with_errors(self) -> AsyncGenerator[str, None]:
        """Yield the events, an event for the error that ends them early, and the end mark."""
        async with contextlib.aclosing(self._events) as events:
            try:
                async for data in events:
                    yield data
            except Exception as error:
                told = to_skipserve_error(error)
                if told is not error:
                    logger.exception("a stream failed")
                self._on_error(told)
                yield error_body(told)
        yield _DONE


async def _send_text(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
