"""Clients that take connections, places and memory and give nothing: others are answered."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hostile_bodies import CHAT
from pictures import question
from raw_client import connect, error_of, post_head, post_whole, read_all
from server_process import ServerProcess

_UNFINISHED = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def strict(checkpoint: Path) -> Iterator[ServerProcess]:
    """A server that is strict enough to be tested in a short time; its answers are long."""
    flags = {
        "max-queued-requests": 4,
        "max-buffered-bytes": 2**20,
        "max-connections": 40,
        "max-address-connections": 30,
        "header-seconds": 0.5,
        "body-seconds": 0.5,
        "write-seconds": 1,
    }
    with ServerProcess(
        checkpoint, *(f"--{name}={value}" for name, value in flags.items())
    ) as server:
        yield server


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def test_unfinished_requests_give_way(server: ServerProcess, opened: contextlib.ExitStack) -> None:
    """With the shipped limits: of one address there are 512 at most, the last ones."""
    first, *others = (opened.enter_context(connect(server.url)) for _ in range(520))
    for connection in (first, *others):
        with contextlib.suppress(ConnectionError):
            connection.sendall(_UNFINISHED)
    with server.client() as client:
        assert client.get("/health").status_code == 200
    with contextlib.suppress(ConnectionError):
        assert read_all(first) == b""
    others[-1].sendall(b"Connection: close\r\n\r\n")
    assert read_all(others[-1]).startswith(b"HTTP/1.1 200")


def test_a_probe_gets_in_whoever_has_taken_all(
    strict: ServerProcess, opened: contextlib.ExitStack
) -> None:
    for index in range(60):
        connection = connect(strict.url, address=f"127.0.0.{2 + index % 4}")
        opened.enter_context(connection).sendall(_UNFINISHED)
    with strict.client() as client:
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (_UNFINISHED, 408),
        (_UNFINISHED + b"X: " + b"a" * 40_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (post_head(CHAT, "Content-Length: 100") + b'{"mess', 408),
        (post_head(CHAT, "Transfer-Encoding: chunked") + b"1\r\n \r\n" * 300, 400),
        (post_head(CHAT, "Content-Length: 4000000") + b'"data:image' + b"A" * 2**20, 503),
    ],
    ids=["head", "long head", "not HTTP", "no host", "body", "crumbs", "bytes of all"],
)
def test_what_is_refused_is_told_in_the_one_form(
    strict: ServerProcess, sent: bytes, status: int
) -> None:
    with connect(strict.url) as connection:
        connection.sendall(sent)
        assert error_of(read_all(connection))["code"] == status


def test_a_connection_that_says_nothing_is_ended(strict: ServerProcess) -> None:
    with connect(strict.url) as connection:
        assert read_all(connection) == b""


def _cancelled(client: httpx.Client) -> int:
    page = client.get("/metrics").text
    found = re.findall(r'requests_total\{.*finish_reason="cancelled".*\} (\d+)', page)
    return sum(map(int, found))


def test_streams_that_nobody_reads_hold_no_place(
    strict: ServerProcess, opened: contextlib.ExitStack
) -> None:
    body = question(
        "Hi", stream=True, logprobs=True, top_logprobs=20, max_tokens=200, temperature=0
    )
    with strict.client() as client:
        before = _cancelled(client)
        streams = []
        for _ in range(12):
            stream = opened.enter_context(connect(strict.url, receive_bytes=2048))
            streams.append(stream)
            stream.sendall(post_whole(CHAT, body))
            begun = b""
            while b'"logprobs":{' not in begun:
                part = stream.recv(1024)
                assert part, begun
                begun += part
        reply = client.post(CHAT, json=question("Hi"))
        assert reply.status_code == 200
        while _cancelled(client) < before + len(streams):
            pass
    for stream in streams:
        with contextlib.suppress(ConnectionResetError):
            assert b"[DONE]" not in read_all(stream)


def test_a_client_that_reads_gets_all_of_it(strict: ServerProcess) -> None:
    body = question(
        "Hi", stream=True, logprobs=True, top_logprobs=20, max_tokens=200, temperature=0
    )
    with strict.client() as client:
        text = client.post(CHAT, json=body).text
    assert text.endswith("data: [DONE]\n\n")
    assert json.loads(text.split("\n\n")[1].removeprefix("data: "))["choices"]
