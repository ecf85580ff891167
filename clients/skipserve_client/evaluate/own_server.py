"""Runs a skipserve server of one's own for as long as it is needed."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import httpx

from skipserve_client.command_group import CommandError

_POLL_SECONDS = 0.1
_STOP_SECONDS = 15.0
_LAST_LINES = 5


@contextmanager
def own_server(flags: Sequence[str], ready_seconds: float = 600.0) -> Iterator[str]:
    """Start `skipserve serve` on a free loopback port and yield its URL once it is ready.

    Args:
        flags: passed to `serve`.
        ready_seconds: how long loading the model may take.

    Raises:
        CommandError: the server ends or is not ready in time; the text is the last it said.
    """
    port = _free_port()
    command = [sys.executable, "-m", "skipserve_client", "serve", *flags]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, url, log, ready_seconds)
            yield url
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(
    process: subprocess.Popen[bytes], url: str, log: IO[str], ready_seconds: float
) -> None:
    deadline = time.monotonic() + ready_seconds
    with httpx.Client(base_url=url, transport=httpx.HTTPTransport()) as http:
        while not _is_ready(http):
            if process.poll() is not None:
                raise CommandError(f"the server did not start: {_last_words(log)}")
            if time.monotonic() > deadline:
                raise CommandError(f"the server was not ready after {ready_seconds:g} seconds")
            time.sleep(_POLL_SECONDS)


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    return "\n".join(log.read().strip().splitlines()[-_LAST_LINES:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the server finish, then end it."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
