"""Reads a request's body under a ceiling, and gives up the request when its client goes away."""

import asyncio
from collections.abc import Container

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skipserve.errors import BodyTooLargeError, InvalidRequestError, UnsupportedBodyError


class ReadBody:
    """Reads the whole body first, then runs the app and listens for the client meanwhile.

    Nothing else may read from the client: the app is handed the body in one message.

    Args:
        app: what comes next.
        paths: the paths that take a JSON body.
        max_bytes: the ceiling, whatever the client declares.
        timeout_seconds: how long a client may take to send a body.
    """

    def __init__(
        self, app: ASGIApp, paths: Container[str], max_bytes: int, timeout_seconds: float
    ) -> None:
        self._app = app
        self._paths = paths
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app.

        Raises:
            BodyTooLargeError: the body is over the ceiling.
            UnsupportedBodyError: it is not declared as JSON.
            InvalidRequestError: it did not arrive in time.
        """
        is_ours = scope["type"] == "http" and scope["method"] == "POST"
        if not is_ours or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        self._check_headers(Headers(scope=scope))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                body = await self._read(receive)
        except TimeoutError as error:
            raise InvalidRequestError("the body did not arrive in time") from error
        if body is not None:
            await self._run(body, scope, receive, send)

    def _check_headers(self, headers: Headers) -> None:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedBodyError("the body must be JSON: send Content-Type: application/json")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            raise self._too_large()

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body; None if the client went away."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the body may hold at most {self._max_bytes} bytes")

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


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _disconnect(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
