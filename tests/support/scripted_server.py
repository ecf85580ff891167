"""A server on loopback that answers what a test tells it to, and remembers what it was asked."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Scripted:
    """One answer. `body` is JSON, or text that is sent as it is."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.encode()


@dataclass(frozen=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Answering = Scripted | Callable[[Received], Scripted]


class ScriptedServer(ThreadingHTTPServer):
    """Gives its answers in turn, the last one again and again; or one that follows the request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Answering] = []
        self.received: list[Received] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answers(self, *script: Answering) -> None:
        self.script = list(script)

    def answer_to(self, received: Received) -> Scripted:
        self.received.append(received)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return answer if isinstance(answer, Scripted) else answer(received)


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(text) if text else None
        received = Received(self.command, self.path, dict(self.headers.items()), body)
        answer = self.server.answer_to(received)
        self.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.data)))
        with contextlib.suppress(ConnectionError):  # a client that gives up early
            self.end_headers()
            self.wfile.write(answer.data)

    def log_message(self, *_: object) -> None:
        pass


def event_stream(events: list[Any], *, is_done: bool = True) -> Scripted:
    """Returns the answer that sends events, with a comment between them as servers do."""
    parts = [f"data: {json.dumps(event)}\n\n" for event in events]
    end = "data: [DONE]\n\n" if is_done else ""
    return Scripted(": ping\n\n".join(parts) + end, headers={"Content-Type": "text/event-stream"})
