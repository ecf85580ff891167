"""Reads a request's body under a ceiling, and gives up the request when its client goes away."""

import asyncio
from collections.abc import Awaitable, Callable, Container
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skipserve.api.admission import Arrival
from skipserve.api.errors import form_of
from skipserve.api.exchange import exchange_of
from skipserve.api.json_body import JsonBody, JsonScanner
from skipserve.api.serving import Serving
from skipserve.asking.fields import FieldTable, shown_names, sift
from skipserve.errors import BodyTooLargeError, RequestTimeoutError, UnsupportedBodyError

_STATE_NAME = "json_body"


@dataclass(frozen=True)
class BodyLimits:
    """What a body may cost.

    Attributes:
        max_bytes: the ceiling, whatever the client declares.
        max_text_bytes: the ceiling for what is no picture.
        seconds: how long a client may take to send it.
    """

    max_bytes: int
    max_text_bytes: int
    seconds: float


class ReadBody:
    """Reads the whole body first, then runs the app and listens for the client meanwhile.

    Nothing else may read from the client: the app is handed the body's text in one message, and a
    `JsonRoute` the value.

    Args:
        app: what comes next.
        paths: the paths that take a JSON body.
        limits: what a body may cost.
        arrive: lets a request in, or raises, before its body is read; counts its bytes.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: Container[str],
        limits: BodyLimits,
        arrive: Callable[[Scope], AbstractAsyncContextManager[Arrival]],
    ) -> None:
        self._app = app
        self._paths = paths
        self._limits = limits
        self._arrive = arrive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app.

        Raises:
            BodyTooLargeError: the body is over a ceiling.
            InvalidRequestError: it holds too many values.
            UnsupportedBodyError: it is not declared as JSON, or is packed.
            RequestTimeoutError: it did not arrive in time.
            UnavailableError: there is no place for the request, or none for its bytes.
        """
        is_ours = scope["type"] == "http" and scope["method"] == "POST"
        if not is_ours or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        self._check_headers(Headers(scope=scope))
        async with self._arrive(scope) as arrival:
            body = await self._read_in_time(receive, arrival)
            if body is not None:
                state = scope.setdefault("state", {})
                state[_STATE_NAME] = body
                try:
                    await self._run(body.text, scope, receive, _releasing(arrival, send))
                finally:
                    # A connection and its last request refer to each other.
                    del state[_STATE_NAME]

    def _check_headers(self, headers: Headers) -> None:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedBodyError("the body must be JSON: send Content-Type: application/json")
        if (coding := headers.get("content-encoding", "identity").strip().lower()) != "identity":
            raise UnsupportedBodyError(
                f"a body in the Content-Encoding {coding[:20]!a} is not read; send it as it is"
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._limits.max_bytes:
            raise self._too_large()

    async def _read_in_time(self, receive: Receive, arrival: Arrival) -> JsonBody | None:
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._read(receive, arrival)
        except TimeoutError as error:
            raise RequestTimeoutError("the body did not arrive in time") from error

    async def _read(self, receive: Receive, arrival: Arrival) -> JsonBody | None:
        """Return the body; None if the client went away."""
        scanner, num_bytes = JsonScanner(self._limits.max_text_bytes), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            num_bytes += len(piece)
            if num_bytes > self._limits.max_bytes:
                raise self._too_large()
            arrival.take(len(piece))
            scanner.feed(piece)
            if not message.get("more_body", False):
                return scanner.finish()

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the body may hold at most {self._limits.max_bytes} bytes")

    async def _run(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app until it is done or the client is gone, whichever is first."""
        gone = asyncio.ensure_future(_disconnect(receive))
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await asyncio.shield(gone)

        answer = asyncio.ensure_future(_call(self._app, scope, replay, send))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            has_answered = answer.done()
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)
        if has_answered:
            answer.result()


def _releasing(arrival: Arrival, send: Send) -> Send:
    """Return a `send` that lets the bytes of the body go: whatever replies has read them."""

    async def releasing(message: Message) -> None:
        arrival.release()
        await send(message)

    return releasing


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _disconnect(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message


class _JsonRequest(Request):
    """A request whose body was read before, of a form with these fields."""

    def __init__(self, request: Request, table: FieldTable) -> None:
        super().__init__(request.scope, request.receive)
        self._table = table

    async def json(self) -> Any:
        """Return the body's value, without the fields that change no answer."""
        body: JsonBody = getattr(self.state, _STATE_NAME)
        serving: Serving = self.app.state.serving
        ignores_unknown = serving.processor.terms.ignores_unknown
        value, ignored = sift(body.parse(), self._table, ignores_unknown=ignores_unknown)
        exchange_of(self.scope).ignored_fields = ignored
        return value


class JsonRoute(APIRoute):
    """A route that takes the value of a body from whoever has read it; tells what it ignores."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return what answers a request."""
        answer, form = super().get_route_handler(), form_of(self)
        if form is None:
            return answer

        async def handle(request: Request) -> Response:
            response = await answer(_JsonRequest(request, form.field_table))
            if names := exchange_of(request.scope).ignored_fields:
                response.headers["X-Ignored-Fields"] = shown_names(names)
            return response

        return handle
