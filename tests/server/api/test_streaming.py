"""Tests of server-sent events."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable

import pytest
from starlette.types import Message

from skipserve.api.streaming import DataEvents, EventStream, Taking, event
from skipserve.asking.answer import Piece
from skipserve.errors import EngineError, SkipserveError, UnavailableError

pytestmark = pytest.mark.fast

OPENING = 'data: "begin"\n\n'


class Source:
    """Yields some pieces, then ends in one of several ways."""

    def __init__(
        self,
        *events: str,
        error: Exception | None = None,
        stays: Callable[[], bool] = lambda: False,
    ) -> None:
        self._events = events
        self._error = error
        self._stays = stays
        self.is_closed = False

    async def run(self) -> AsyncGenerator[Piece, None]:
        try:
            for event in self._events:
                yield Piece(event, (), None)
            while self._stays():
                await asyncio.sleep(0)
            if self._error is not None:
                raise self._error
        finally:
            self.is_closed = True


class Plain(DataEvents):
    """Writes a piece as its text: nothing for an empty one; a broken one cannot be written."""

    def opening(self) -> tuple[str, ...]:
        return (event('"begin"'),)

    def chunks(self, piece: Piece) -> tuple[str, ...]:
        if piece.text == "broken":
            raise ZeroDivisionError
        return (event(piece.text),) if piece.text else ()


def send_all(
    source: Source,
    breaks_after: int | None = None,
    sent: list[Message] | None = None,
    on_error: Callable[[SkipserveError], None] = lambda _: None,
    taking: Taking | None = None,
) -> list[Message]:
    """Return what was sent; the client's connection may break after some messages."""
    taken = {} if taking is None else {"until_taken": taking.wait}
    sent = [] if sent is None else sent

    async def send(message: Message) -> None:
        if breaks_after is not None and len(sent) == breaks_after:
            raise ConnectionResetError
        sent.append(message)

    async def receive() -> Message:
        raise NotImplementedError

    async def run() -> None:
        headers = {"X-Skip-Policy": "full"}
        stream = EventStream(source.run(), Plain(), headers, 0.01, on_error, **taken)
        await stream({"type": "http"}, receive, send)

    asyncio.run(run())
    return sent


def text_of(sent: list[Message]) -> str:
    """Return what was sent behind the opening."""
    text = b"".join(message.get("body", b"") for message in sent).decode()
    assert text.startswith(OPENING)
    return text.removeprefix(OPENING)


def test_events_and_their_end() -> None:
    source = Source('{"a": 1}', "", '{"b": 2}')
    sent = send_all(source)
    assert text_of(sent) == 'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-accel-buffering"] == b"no"
    assert headers[b"x-skip-policy"] == b"full"
    assert b"content-length" not in headers
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert source.is_closed


def test_an_error_after_the_headers() -> None:
    text = text_of(send_all(Source("{}", error=EngineError("the engine stopped"))))
    first, error, done, _ = text.split("\n\n")
    assert (first, done) == ("data: {}", "data: [DONE]")
    body = json.loads(error.removeprefix("data: "))["error"]
    assert (body["code"], body["message"]) == (500, "the engine stopped")


@pytest.mark.parametrize("error", [EngineError("the engine stopped"), ZeroDivisionError()])
def test_an_error_is_noted_before_it_is_sent(error: Exception) -> None:
    sent: list[Message] = []
    noted: list[tuple[int, str]] = []
    source = Source("{}", error=error)
    send_all(source, sent=sent, on_error=lambda it: noted.append((it.status, text_of(sent))))
    assert noted == [(500, "data: {}\n\n")]


def test_s13_an_unforeseen_error_tells_nothing() -> None:
    text = text_of(send_all(Source(error=ValueError("<object at 0x7fc0ffee1234> in /home/me"))))
    assert "0x" not in text
    assert "/home" not in text
    assert '"code":500' in text
    assert text.endswith("data: [DONE]\n\n")


def test_nothing_follows_what_could_not_be_written() -> None:
    source = Source("{}", "broken", "{}")
    first, error, done, _ = text_of(send_all(source)).split("\n\n")
    assert (first, done) == ("data: {}", "data: [DONE]")
    assert '"code":500' in error
    assert source.is_closed


def test_the_source_is_closed_when_the_connection_breaks() -> None:
    source = Source("{}", "{}", "{}")
    with pytest.raises(ConnectionResetError):
        send_all(source, breaks_after=2)
    assert source.is_closed


def test_signs_of_life_while_nothing_happens() -> None:
    sent: list[Message] = []
    source = Source("{}", stays=lambda: len(sent) < 5)
    send_all(source, sent=sent)
    assert text_of(sent).startswith("data: {}\n\n: keep-alive\n\n: keep-alive\n\n")
    assert source.is_closed


def test_what_nobody_takes_fails_before_the_headers() -> None:
    sent: list[Message] = []
    source = Source(error=UnavailableError("no engine takes it"))
    with pytest.raises(UnavailableError, match="no engine takes it"):
        send_all(source, sent=sent, taking=Taking(1))
    assert sent == []
    assert source.is_closed


def test_what_was_taken_fails_behind_the_headers() -> None:
    taking = Taking(2)
    taking.note("first")
    taking.note("second")
    text = text_of(send_all(Source(error=EngineError("it died")), taking=taking))
    assert '"code":500' in text


def test_a_stream_begins_once_all_have_been_taken() -> None:
    """One of them twice, as where it goes on elsewhere."""
    taking, sent = Taking(2), list[Message]()
    took: list[int] = []

    def stays() -> bool:
        for request_id in ("first", "first", "second"):
            taking.note(request_id)
            took.append(len(sent))
        return not sent

    send_all(Source(stays=stays), sent=sent, taking=taking)
    assert took[:3] == [0, 0, 0]
    assert len(sent) > 1


def test_an_answer_that_is_there_at_once_needs_no_taking() -> None:
    assert text_of(send_all(Source("{}"), taking=Taking(1))) == "data: {}\n\ndata: [DONE]\n\n"


def test_whoever_leaves_before_it_is_taken_ends_it() -> None:
    source, sent = Source(stays=lambda: True), list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise NotImplementedError

    async def run() -> None:
        stream = EventStream(source.run(), Plain(), {}, 1.0, lambda _: None, Taking(1).wait)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await stream({"type": "http"}, receive, send)

    asyncio.run(run())
    assert sent == []
    assert source.is_closed
