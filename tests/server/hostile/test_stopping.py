"""SIGTERM and SIGINT at bad moments: every client hears how its request ended, and all end soon."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from children import running
from hostile_bodies import CHAT
from hostile_pictures import repeated_scans
from pictures import data_uri, question
from raw_client import connect, error_of, post_head, post_whole, read_all
from server_process import ServerProcess, is_running

from skipserve.commands import ExitCode

# What the shutdown must not wait for: where it does, the test never ends.
_FOR_EVER = 3600
# Tokens of an answer that no machine ends before it is cut off.
_LONG = {"temperature": 0, "max_tokens": 1900, "ignore_eos": True}
_ENDLESS = ("--image-cpu-seconds", str(_FOR_EVER), "--grace-seconds", str(_FOR_EVER))


@pytest.fixture
def server(request: pytest.FixtureRequest, slow_checkpoint: Path) -> Iterator[ServerProcess]:
    with ServerProcess(slow_checkpoint, *request.param) as server:
        yield server


class Clients(contextlib.ExitStack):
    """Connections to a server, closed with the context."""

    def sends(self, server: ServerProcess, content: bytes, **how: Any) -> socket.socket:
        """Return a connection over which so much was sent."""
        connection = self.enter_context(connect(server.url, **how))
        connection.sendall(content)
        return connection

    def streams(self, server: ServerProcess, **fields: Any) -> socket.socket:
        """Return the connection of a stream whose first token has come; little of it is read."""
        body = question("Why?", stream=True, **_LONG, **fields)
        connection = self.sends(server, post_whole(CHAT, body), receive_bytes=2048)
        text = b""
        while text.count(b"data: ") < 2:
            text += connection.recv(512)
        return connection


@pytest.fixture
def clients() -> Iterator[Clients]:
    with Clients() as clients:
        yield clients


def begin_to_stop(server: ServerProcess) -> None:
    """Return when the server, which has read all that was sent before, turns others away."""
    with server.client() as client:
        assert client.get("/health").status_code == 200
        server.signal(signal.SIGTERM)
        while client.get("/ready").status_code != 503:
            pass


def exit_of(server: ServerProcess) -> tuple[int, str]:
    """Return the exit code and the output of a server, which speaks of no fault in it."""
    children = [*server.decoder_ids, *server.child_ids("skipserve.service.process")]
    code, output = server.wait()
    assert "Traceback" not in output
    assert "ASGI" not in output
    assert not any(map(is_running, children))
    return code, output


def is_busy(process_id: int) -> bool:
    """Return whether a process runs, and waits for nothing."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "R"
    return False


def last_error(reply: bytes) -> dict[str, Any]:
    """Return the error that a stream ends with."""
    *_, text, done = re.findall(rb"^data: (.*)$", reply, re.MULTILINE)
    assert done == b"[DONE]"
    error: dict[str, Any] = json.loads(text)["error"]
    return error


@pytest.mark.parametrize("server", [("--grace-seconds", "1")], indirect=True)
def test_when_the_grace_ends_every_client_is_told(server: ServerProcess, clients: Clients) -> None:
    streams = [clients.streams(server) for _ in range(4)]
    clients.streams(server, logprobs=True, top_logprobs=20)  # never read
    whole = clients.sends(server, post_whole(CHAT, question("Why?", **_LONG)))
    body = clients.sends(server, post_head(CHAT, "Content-Length: 100") + b'{"mess')
    head = clients.sends(server, b"GET /health HTTP/1.1\r\n")
    begin_to_stop(server)
    with server.client() as client:
        assert "skipserve_requests_running" in client.get("/metrics").text
        assert client.post(CHAT, json=question("Hi")).status_code == 503
    for stream in streams:
        error = last_error(read_all(stream))
        assert (error["code"], error["type"]) == (503, "overloaded_error")
        assert "shutting down" in error["message"]
    for connection in (whole, body):
        reply = read_all(connection)
        assert error_of(reply)["code"] == 503
        assert b"\r\nretry-after: " in reply.lower()
    assert read_all(head) == b""
    code, output = exit_of(server)
    assert code == ExitCode.REQUESTS_LOST
    assert "requests that were cut off: 7" in output


@pytest.mark.parametrize("server", [_ENDLESS], indirect=True)
def test_a_second_signal_ends_it_while_a_picture_decodes(
    server: ServerProcess, clients: Clients
) -> None:
    """And further ones change nothing."""
    picture = data_uri(repeated_scans(6000, 100), "image/jpeg")
    with ThreadPoolExecutor(3) as threads, server.client() as client:
        asked = [
            threads.submit(client.post, CHAT, json=question("Hi", picture, stream=stream))
            for stream in (False, True, False)
        ]
        while not any(map(is_busy, server.decoder_ids)):
            pass
        stream = clients.streams(server)
        begin_to_stop(server)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            server.signal(number)
        assert last_error(read_all(stream))["code"] == 503
        for each in asked:
            assert each.result().status_code == 503
            assert "shutting down" in each.result().json()["error"]["message"]
    code, output = exit_of(server)
    assert code == ExitCode.REQUESTS_LOST
    assert "requests that were cut off: 4" in output


@pytest.mark.parametrize("server", [("--grace-seconds", str(_FOR_EVER))], indirect=True)
def test_a_body_on_its_way_is_answered_and_an_engine_that_dies_is_told(
    server: ServerProcess, clients: Clients
) -> None:
    stream = clients.streams(server)
    whole = post_whole(CHAT, question("Hi", max_tokens=2))
    connection = clients.sends(server, whole[:-10])
    begin_to_stop(server)
    connection.sendall(whole[-10:])
    reply = read_all(connection)
    assert reply.startswith(b"HTTP/1.1 200")
    assert b"\r\nconnection: close\r\n" in reply.lower()
    os.kill(server.engine_id, signal.SIGKILL)
    assert last_error(read_all(stream))["code"] == 500
    assert exit_of(server)[0] == ExitCode.ENGINE_GONE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_the_model_loads(slow_checkpoint: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-u", "-m", "skipserve_client", "serve", "--port", "0"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with running([*command, "--model", slow_checkpoint], **options) as process:
        assert process.stdout is not None
        while "Loading" not in process.stdout.readline():
            pass
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait() == ExitCode.STOPPED
    assert "Traceback" not in rest
    assert "serves" not in rest
