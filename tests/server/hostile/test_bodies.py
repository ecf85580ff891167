"""What one JSON body may cost: of the processor, of memory, and of the event loop at a stretch."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from hostile_bodies import CHAT, HOSTILE_BODIES, JSON, MIB
from process_cost import cpu_seconds, forget_peak, peak_bytes, resident_bytes
from server_process import ServerProcess
from starlette.types import Message

from skipserve.app import Built, build
from skipserve.service.local import EngineService
from skipserve.settings import Settings

# What arrives at once from a socket.
_PIECE_BYTES = 2**18
# For what a body does not cause: connections, ticks of the counter, other tests' garbage.
_SLACK_SECONDS = 0.1
_SLACK_BYTES = 64 * MIB


@pytest.mark.parametrize("name", HOSTILE_BODIES)
def test_a_body_costs_no_more_than_its_bytes(server: ServerProcess, name: str) -> None:
    """At most 50 ms of CPU a MiB and 3 times the body plus 64 MiB."""
    body = HOSTILE_BODIES[name](16 * MIB)
    with server.client() as client:
        forget_peak(server.process_id)
        held, spent = resident_bytes(server.process_id), cpu_seconds(server.process_id)
        reply = client.post(CHAT, content=body, headers=JSON)
        spent = cpu_seconds(server.process_id) - spent
        assert reply.status_code in {400, 413, 422}
        assert set(reply.json()) == {"error"}
        assert spent < 16 * 0.05 + _SLACK_SECONDS
        assert peak_bytes(server.process_id) - held < 3 * len(body) + _SLACK_BYTES
        assert client.get("/health").status_code == 200


_PICTURE = (
    b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": '
    b'{"url": "data:image/png;base64,' + b"A" * (20 * MIB)
)
_FAILING = {
    "no picture": (_PICTURE + b'"}}]}]}', 422),
    "no JSON": (_PICTURE + b'"}}', 400),
    "too large": (_PICTURE + b"A" * (12 * MIB), 413),
}


@pytest.mark.parametrize("name", _FAILING)
def test_bodies_of_requests_that_failed_are_gone(server: ServerProcess, name: str) -> None:
    """However many came, they cost what two cost: nothing waits for Python's collector."""
    body, status = _FAILING[name]
    forget_peak(server.process_id)
    peaks = []
    for _ in range(20):
        # In chunks: what declares its size is turned away unread where that is too large.
        with server.client() as client:
            reply = client.post(CHAT, content=_pieces(body), headers=JSON)
        assert reply.status_code == status
        peaks.append(peak_bytes(server.process_id))
    assert peaks[-1] - peaks[1] < 2 * len(body)


def _pieces(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), _PIECE_BYTES):
        yield body[at : at + _PIECE_BYTES]


class _Heart:
    """Beats at each turn of the event loop, and remembers the one that took most of the CPU."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._beat_at = time.thread_time()
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._beat)

    def _beat(self) -> None:
        now = time.thread_time()
        self.longest, self._beat_at = max(self.longest, now - self._beat_at), now
        self._loop.call_soon(self._beat)


class _ReadyService(EngineService):
    """An engine that takes requests and is never asked."""

    @property
    def why_not_ready(self) -> str | None:
        return None


@pytest.fixture(scope="module")
def built() -> Built:
    return build(Settings(), _ReadyService)


@pytest.mark.parametrize("name", HOSTILE_BODIES)
def test_a_body_does_not_hold_the_loop(built: Built, name: str) -> None:
    """At most 50 ms; twice that here, for what runs beside."""
    status, longest = asyncio.run(_post(built, HOSTILE_BODIES[name](8 * MIB)))
    assert status in {400, 413, 422}
    assert longest < 0.1


async def _post(built: Built, body: bytes) -> tuple[int, float]:
    """Return the status, and the longest time that the loop was held."""
    pieces = list(_pieces(body))
    statuses: list[int] = []
    heart = _Heart()

    async def receive() -> Message:
        await asyncio.sleep(0)
        if not pieces:
            await asyncio.Event().wait()
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": None,
        "server": None,
        "scheme": "http",
        "root_path": "",
    }
    await built.app(scope, receive, send)
    return statuses[0], heart.longest
