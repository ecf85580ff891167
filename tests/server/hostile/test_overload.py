"""Clients that come again at once after they were turned away, against a real process."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hostile_bodies import CHAT
from pictures import question
from process_cost import cpu_seconds
from raw_client import connect, error_of, post_head, post_whole, read_reply
from server_process import ServerProcess

_NUM_CLIENTS, _NUM_TURNS = 50, 12
# It is a fifth of it on the machine where this was written.
_MOST_CPU_SECONDS = 0.001


@pytest.fixture(scope="module")
def full(checkpoint: Path) -> Iterator[ServerProcess]:
    """A server with one place, which is taken as long as its engine stands still."""
    with ServerProcess(checkpoint, "--max-queued-requests=1") as server, ExitStack() as stack:
        os.kill(server.engine_id, signal.SIGSTOP)
        stack.callback(os.kill, server.engine_id, signal.SIGCONT)
        stack.enter_context(connect(server.url)).sendall(post_whole(CHAT, question("Hi")))
        with server.client() as client:
            while not re.search(r"requests_waiting\{.*\} 1", client.get("/metrics").text):
                pass
        yield server


def test_to_turn_a_client_away_costs_little_however_often(full: ServerProcess) -> None:
    """The kept connections go on, and are told when to come back: not all at once."""
    request = post_whole(CHAT, question("Hi"))
    retries = set()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(full.url)) for _ in range(_NUM_CLIENTS)]
        before = cpu_seconds(full.process_id)
        for _ in range(_NUM_TURNS):
            for connection in clients:
                connection.sendall(request)
            for connection in clients:
                head, body = read_reply(connection)
                assert error_of(head + body)["type"] == "overloaded_error"
                retries.add(head.lower().partition(b"retry-after: ")[2].split()[0])
        spent = cpu_seconds(full.process_id) - before
    assert spent < _NUM_CLIENTS * _NUM_TURNS * _MOST_CPU_SECONDS
    assert len(retries) > 1


def test_clients_are_turned_away_before_they_send_a_body(full: ServerProcess) -> None:
    with connect(full.url) as connection:
        connection.sendall(post_head(CHAT, "Content-Length: 20000000", "Expect: 100-continue"))
        head, body = read_reply(connection)
        assert error_of(head + body)["code"] == 503


def test_anthropics_clients_are_told_in_their_form(full: ServerProcess) -> None:
    with connect(full.url) as connection:
        connection.sendall(post_whole("/v1/messages", {}))
        head, body = read_reply(connection)
    assert head.startswith(b"HTTP/1.1 503 ")
    told = json.loads(body)
    assert (told["type"], told["error"]["type"]) == ("error", "overloaded_error")
    assert told["request_id"].encode() in head


def test_what_comes_behind_a_request_that_is_turned_away_is_answered(full: ServerProcess) -> None:
    """The rest of its body is read and dropped; what follows it on the connection counts."""
    pipelined = post_whole(CHAT, question("Hi")) * 3
    probe = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connect(full.url) as connection:
        connection.sendall(pipelined[:-5])
        for _ in range(3):
            assert read_reply(connection)[0].startswith(b"HTTP/1.1 503 ")
        connection.sendall(pipelined[-5:] + probe)
        head, body = read_reply(connection)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b'"version"' in body
        assert not connection.recv(1)


def test_a_client_that_asks_for_it_is_turned_away_for_good(full: ServerProcess) -> None:
    with connect(full.url) as connection:
        connection.sendall(post_head(CHAT, "Content-Length: 3", "Connection: close") + b"{}\n")
        head, body = read_reply(connection)
        assert b"connection: close" in head.lower()
        assert error_of(head + body)["code"] == 503
        assert not connection.recv(1)


def test_others_are_answered_meanwhile(full: ServerProcess) -> None:
    request = post_whole(CHAT, question("Hi"))
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(full.url)) for _ in range(_NUM_CLIENTS)]
        for connection in clients:
            connection.sendall(request * 20)
        with full.client() as client:
            assert client.get("/health").status_code == 200
            assert client.post(CHAT, json=question("Hi")).status_code == 503
