"""Requests to servers that answer, refuse, break off, hang, or speak something else."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import pytest
from scripted_server import Received, Scripted, ScriptedServer, event_stream

from skipserve_client.load.asking import Job
from skipserve_client.load.records import Outcome, Record
from skipserve_client.load.sending import Lines, Sender

pytestmark = pytest.mark.fast

CONTENT = b'{"messages": []}'


def send(url: str, *, timeout: float = 60.0, retries: int = 0, ago: float | None = None) -> Record:
    """Send a request; in an open loop where it was due so many seconds ago."""

    async def sending() -> Record:
        lines = Lines(url, "key", retries)
        try:
            job = Job(3, "full", "p", "?", None if ago is None else 0.0, CONTENT)
            return await Sender(lines, timeout, tells_tokens=False).send(
                job, perf_counter() - (ago or 0.0)
            )
        finally:
            await lines.close()

    return asyncio.run(sending())


def test_an_answer_is_timed(server: ScriptedServer, stream_events: list[Any]) -> None:
    server.answers(event_stream(stream_events))
    record = send(server.url)
    assert (record.outcome, record.failure, record.finish_reason) == ("answered", None, "stop")
    assert record.ttft_seconds is not None
    assert 0 < record.ttft_seconds <= record.e2e_seconds
    assert len(record.itl_seconds) == 1
    assert record.tokens is not None
    assert (record.tokens.completion, record.tokens.full_flops) == (2, 1000)
    (received,) = server.received
    assert received.path == "/v1/chat/completions"
    assert received.headers["Authorization"] == "Bearer key"


def test_times_of_an_open_loop_count_from_when_a_request_was_due(
    server: ScriptedServer, stream_events: list[Any]
) -> None:
    server.answers(event_stream(stream_events))
    late, prompt = send(server.url, ago=100.0), send(server.url)
    assert late.lag_seconds is not None
    assert late.lag_seconds >= 100
    assert late.ttft_seconds is not None
    assert late.ttft_seconds >= 100
    assert late.e2e_seconds >= 100 > prompt.e2e_seconds
    assert prompt.lag_seconds is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_rejection_is_no_failure(server: ScriptedServer, status: int) -> None:
    error = {"error": {"message": "full", "code": status}}
    server.answers(Scripted(error, status, {"Retry-After": "7"}))
    record = send(server.url)
    assert record.failure is not None
    assert (record.outcome, record.failure.code) == (Outcome.REJECTED, str(status))
    assert (record.failure.message, record.failure.retry_after_seconds) == ("full", 7.0)
    assert (record.ttft_seconds, record.tokens, len(server.received)) == (None, None, 1)


def test_it_is_sent_again_where_that_is_wanted(
    server: ScriptedServer, stream_events: list[Any]
) -> None:
    server.answers(Scripted({}, 503, {"Retry-After": "0"}), event_stream(stream_events))
    assert send(server.url, retries=1).is_answered
    assert len(server.received) == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Scripted("<html>oops</html>", 500), "500"),
        (Scripted({"detail": "no"}, 404), "404"),
        (Scripted({"choices": []}), "protocol"),
        (Scripted("", headers={"Content-Type": "text/event-stream"}), "connection"),
        (event_stream([], is_done=False), "connection"),
        (event_stream(["nonsense"]), "protocol"),
        (event_stream([{"choices": 3}]), "protocol"),
        (event_stream([{"error": {"message": "out of memory", "code": 500}}]), "500"),
        (event_stream([{"usage": {"prompt_tokens": "x"}}]), "protocol"),
        (Scripted("", headers={"Content-Length": "-1"}), "connection"),
        (Scripted({}, headers={"Content-Encoding": "gzip"}), "protocol"),
        (Scripted("", 302, {"Location": "/elsewhere"}), "protocol"),
        (Scripted("data: " + "x" * 3_000_000), "protocol"),
    ],
)
def test_what_goes_wrong_is_a_code(server: ScriptedServer, answer: Scripted, code: str) -> None:
    server.answers(answer)
    record = send(server.url)
    assert record.failure is not None
    assert (record.outcome, record.failure.code) == (Outcome.FAILED, code)
    assert record.failure.message
    assert record.itl_seconds == ()


@contextmanager
def saying(data: bytes) -> Iterator[str]:
    """Listen, say something to whoever asks, and break the connection off."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'


@pytest.mark.parametrize(
    "data", [b"", b"\x00\xff nonsense\r\n\r\n", HEAD, HEAD + b"%x\r\n%b\r\n" % (len(EVENT), EVENT)]
)
def test_a_connection_that_breaks(data: bytes) -> None:
    with saying(data) as url:
        record = send(url)
    assert record.failure is not None
    assert record.failure.code == "connection"


def test_nobody_listens() -> None:
    record = send("http://127.0.0.1:9")
    assert record.failure is not None
    assert record.failure.code == "connection"


def test_a_server_that_hangs_is_given_up(server: ScriptedServer) -> None:
    is_over = threading.Event()

    def hang(_: Received) -> Scripted:
        is_over.wait()
        return Scripted({})

    server.answers(hang)
    record = send(server.url, timeout=0.05)
    is_over.set()
    assert record.failure is not None
    assert (record.failure.code, record.failure.message) == ("timeout", "no end after 0.05 seconds")
    assert record.e2e_seconds >= 0.05


def test_connections_are_used_again(server: ScriptedServer, stream_events: list[Any]) -> None:
    server.answers(event_stream(stream_events))

    async def sending() -> int:
        lines = Lines(server.url, None)
        sender = Sender(lines, 60.0, tells_tokens=False)
        job = Job(0, "full", None, "?", None, CONTENT)
        await asyncio.gather(*(sender.send(job, 0.0) for _ in range(5)))
        seen: set[int] = set()
        for _ in range(5):
            async with lines.take() as client:
                seen.add(id(client))
            await sender.send(job, 0.0)
        await lines.close()
        return len(seen)

    assert asyncio.run(sending()) == 1
