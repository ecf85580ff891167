"""Server-sent events: an answer as it grows, and errors after the headers are gone."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
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


class Taking:
    """Waits until engines have taken all questions of a request.

    Args:
        num_questions: how many there are, each answer counting as one.
    """

    def __init__(self, num_questions: int) -> None:
        self._num_questions = num_questions
        self._taken: set[str] = set()
        self._are_all_taken = asyncio.Event()

    def note(self, request_id: str) -> None:
        """Hear that one has been taken, perhaps again."""
        self._taken.add(request_id)
        if len(self._taken) == self._num_questions:
            self._are_all_taken.set()

    async def wait(self) -> None:
        """Return when all have been taken."""
        await self._are_all_taken.wait()


async def _at_once() -> None:
    return


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
        until_taken: returns when there is somebody who answers: an error before that is raised, for
            the reply has not begun.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[Piece, None],
        writer: StreamWriter,
        headers: Mapping[str, str],
        keep_alive_seconds: float,
        on_error: Callable[[SkipserveError], None],
        until_taken: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._pieces = pieces
        self._writer = writer
        self._is_over = False
        self._keep_alive_seconds = keep_alive_seconds
        self._on_error = on_error
        self._until_taken = until_taken
        self.init_headers({"X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events.

        Raises:
            SkipserveError: nobody has taken the question.
        """
        async with contextlib.aclosing(self._pieces):
            first = await self._begin()
            try:
                await self._send(first, send)
            finally:
                await _end(first)

    async def _begin(self) -> asyncio.Task[Piece]:
        """Return what brings the first piece once it is under way, or there."""
        first = asyncio.create_task(_next(self._pieces))
        taken = asyncio.ensure_future(self._until_taken())
        try:
            await asyncio.wait({first, taken}, return_when=asyncio.FIRST_COMPLETED)
            if not taken.done() and first.exception() is not None:
                first.result()
        except BaseException:
            await _end(first)
            raise
        finally:
            taken.cancel()
        return first

    async def _send(self, first: asyncio.Task[Piece], send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        beat = asyncio.create_task(self._keep_alive(send))
        try:
            await self._send_events(first, send)
        finally:
            beat.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._keep_alive_seconds)
            await _send_text(send, self._writer.sign_of_life)

    async def _send_events(self, first: Awaitable[Piece], send: Send) -> None:
        await _send_all(send, self._writer.opening())
        await _send_all(send, await self._next_events(first))
        while not self._is_over:
            await _send_all(send, await self._next_events(anext(self._pieces)))
        await self._pieces.aclose()
        await _send_all(send, self._writer.closing)

    async def _next_events(self, piece: Awaitable[Piece]) -> Iterable[str]:
        """Return the events of the next piece: none at the end, that of the error at an error."""
        try:
            return self._writer.chunks(await piece)
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


async def _next(pieces: AsyncGenerator[Piece, None]) -> Piece:
    return await anext(pieces)


async def _end(task: asyncio.Task[Piece]) -> None:
    """Cancel a task and return when it is done; whatever it brings, nobody waits for it."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _send_all(send: Send, events: Iterable[str]) -> None:
    for text in events:
        await _send_text(send, text)


async def _send_text(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
