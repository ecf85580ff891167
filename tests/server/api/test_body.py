"""Tests of the layer that reads bodies and watches for clients that leave."""

import asyncio
import contextlib
from collections.abc import Iterable

import pytest
from starlette.types import Message, Receive, Scope, Send

from skipserve.api.admission import Arrival
from skipserve.api.body import BodyLimits, ReadBody
from skipserve.errors import (
    BodyTooLargeError,
    RequestTimeoutError,
    SkipserveError,
    UnsupportedBodyError,
)

pytestmark = pytest.mark.fast

JSON = (b"content-type", b"application/json")


def scope_of(*headers: tuple[bytes, bytes], path: str = "/chat", method: str = "POST") -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": [*headers]}


class Client:
    """Sends a body in pieces, then stays, or leaves."""

    def __init__(
        self, pieces: Iterable[bytes], leaves: bool = False, is_whole: bool = True
    ) -> None:
        pieces = list(pieces)
        self._messages: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        if is_whole:
            self._messages.append({"type": "http.request", "body": b"", "more_body": False})
        if leaves:
            self._messages.append({"type": "http.disconnect"})
        self.num_received = 0

    async def receive(self) -> Message:
        if not self._messages:
            await asyncio.Event().wait()
        self.num_received += 1
        return self._messages.pop(0)


class App:
    """Reads its body, then works until it is done or cancelled."""

    def __init__(self, works_forever: bool = False) -> None:
        self._works_forever = works_forever
        self.body: bytes | None = None
        self.was_cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = (await receive())["body"]
        try:
            if self._works_forever:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


class Counted(Arrival):
    """Counts bytes for nobody."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes


def arrive(scope: Scope) -> contextlib.AbstractAsyncContextManager[Arrival]:
    return contextlib.nullcontext(Counted())


def run(app: App, client: Client, scope: Scope, max_bytes: int = 100, seconds: float = 5) -> None:
    async def send(message: Message) -> None:
        raise NotImplementedError

    layer = ReadBody(app, {"/chat"}, BodyLimits(max_bytes, max_bytes, seconds), arrive)
    asyncio.run(layer(scope, client.receive, send))


def refused(kind: type[SkipserveError], client: Client, scope: Scope, **limits: float) -> App:
    app = App()
    with pytest.raises(kind):
        run(app, client, scope, **limits)  # type: ignore[arg-type]
    assert app.body is None
    return app


def test_the_body_comes_in_one_piece() -> None:
    app = App()
    run(app, Client([b"ab", b"", b"c"]), scope_of(JSON))
    assert app.body == b"abc"


@pytest.mark.parametrize("value", [b"application/json", b"Application/JSON; charset=utf-8"])
def test_what_counts_as_json(value: bytes) -> None:
    app = App()
    run(app, Client([b"{}"]), scope_of((b"content-type", value)))
    assert app.body == b"{}"


def test_what_does_not() -> None:
    refused(UnsupportedBodyError, Client([b"{}"]), scope_of())
    refused(UnsupportedBodyError, Client([b"{}"]), scope_of((b"content-type", b"text/json")))


def test_a_packed_body_is_not_taken_for_a_broken_one() -> None:
    refused(UnsupportedBodyError, Client([b"{}"]), scope_of(JSON, (b"content-encoding", b"gzip")))
    app = App()
    run(app, Client([b"{}"]), scope_of(JSON, (b"content-encoding", b"Identity")))
    assert app.body == b"{}"


def test_s25_bytes_are_counted_as_they_come() -> None:
    app = App()
    run(app, Client([b"x" * 100]), scope_of(JSON))
    assert app.body == b"x" * 100
    client = Client([b"x" * 60] * 1000)
    refused(BodyTooLargeError, client, scope_of(JSON))
    assert client.num_received == 2


def test_s25_a_declared_length_is_believed_at_once() -> None:
    client = Client([b"x"])
    refused(BodyTooLargeError, client, scope_of(JSON, (b"content-length", b"101")))
    assert client.num_received == 0
    app = App()
    run(app, Client([b"x"]), scope_of(JSON, (b"content-length", b"nonsense")))
    assert app.body == b"x"


def test_s07_a_slow_body_is_given_up() -> None:
    refused(RequestTimeoutError, Client([b"x"], is_whole=False), scope_of(JSON), seconds=0.02)


def test_a_client_that_leaves_before_its_body_is_whole() -> None:
    app = App()
    run(app, Client([b"x"], leaves=True, is_whole=False), scope_of(JSON))
    assert app.body is None


def test_a_client_that_leaves_ends_the_work() -> None:
    app = App(works_forever=True)
    run(app, Client([b"x"], leaves=True), scope_of(JSON))
    assert app.was_cancelled


def test_an_error_of_the_app_comes_through() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(broken, Client([b"x"]), scope_of(JSON))  # type: ignore[arg-type]


def test_other_routes_are_left_alone() -> None:
    for scope in (scope_of(path="/other"), scope_of(method="GET")):
        app = App()
        client = Client([b"x"])
        run(app, client, scope)
        assert (app.body, client.num_received) == (b"x", 1)
