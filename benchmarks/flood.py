"""Clients that never wait: each asks again as soon as it is answered, whatever it was told."""

import asyncio
import json
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np

_CHAT = "/v1/chat/completions"


@dataclass
class Replies:
    """How long replies took that came in a time.

    Attributes:
        seconds: the time.
        accepted: seconds of each answer.
        refused: seconds of each refusal.
    """

    seconds: float
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def add(self, status: int, seconds: float) -> None:
        """Take a reply in.

        Raises:
            RuntimeError: it is neither an answer nor a refusal.
        """
        if status not in {200, 503}:
            raise RuntimeError(f"a request was answered with {status}")
        (self.accepted if status == 200 else self.refused).append(seconds)


def milliseconds(seconds: list[float], percent: float) -> float:
    """Return a percentile; 0 of none."""
    return 1000 * float(np.percentile(seconds, percent)) if seconds else 0.0


class _Client(asyncio.Protocol):
    """One client on one connection; a new one takes its place where that ends."""

    def __init__(self, flood: "_Flood") -> None:
        self._flood = flood
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._flood.clients.add(self)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _num_bytes(head):
            return
        self._received = b""
        self._flood.take(int(head[9:12]), perf_counter() - self._asked)
        if self._flood.reconnects:
            self.leave()
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._flood.clients.remove(self)
        self._flood.come_again()

    def leave(self) -> None:
        self._transport.abort()

    def _ask(self) -> None:
        self._asked = perf_counter()
        self._transport.write(self._flood.request)


class _Flood:
    """Clients of one server, for a time.

    Args:
        url: the server's.
        body: of every request.
        reconnects: whether each request comes on a connection of its own.
        replies: what comes.
    """

    def __init__(self, url: str, body: Any, *, reconnects: bool, replies: Replies) -> None:
        self.clients: set[_Client] = set()
        self.is_over = False
        self.reconnects = reconnects
        self.request = _request(body)
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self._replies = replies
        self._fault: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, num_clients: int) -> None:
        for _ in range(num_clients):
            self.come_again()
        await asyncio.sleep(self._replies.seconds)
        self.is_over = True
        while self._tasks or self.clients:
            await asyncio.gather(*self._tasks)
            for client in self.clients:
                client.leave()
            await asyncio.sleep(0)
        if self._fault is not None:
            raise self._fault

    def come_again(self) -> None:
        if not self.is_over:
            task = asyncio.ensure_future(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def take(self, status: int, seconds: float) -> None:
        if not self.is_over:
            try:
                self._replies.add(status, seconds)
            except RuntimeError as error:
                self._fault, self.is_over = error, True

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(
            lambda: _Client(self), self._host, self._port
        )


def _request(body: Any) -> bytes:
    content = json.dumps(body).encode()
    lines = (
        f"POST {_CHAT} HTTP/1.1",
        "Host: localhost",
        "Accept: */*",
        "User-Agent: flood",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def _num_bytes(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split()[0])


def flood(url: str, body: Any, num_clients: int, seconds: float, *, reconnects: bool) -> Replies:
    """Let clients ask for a time.

    Args:
        url: the server's.
        body: of every request.
        num_clients: how many there are at any time.
        seconds: how long.
        reconnects: whether each request comes on a connection of its own.
    """
    replies = Replies(seconds)
    asyncio.run(_Flood(url, body, reconnects=reconnects, replies=replies).run(num_clients))
    return replies
