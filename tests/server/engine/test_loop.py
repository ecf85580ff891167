"""The loop of the engine process, in a thread and at the other end of a socket."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec
import pytest
from fake_decoder import FakeDecoder, make_request
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.ipc import pack
from skipserve.engine.loop import EngineLoop
from skipserve.engine.types import (
    Cancel,
    Failed,
    FinishReason,
    FromEngine,
    Progress,
    StepOutput,
    Submit,
    ToEngine,
)
from skipserve.model.batch import Batch
from skipserve.model.decoder import KVCache

pytestmark = pytest.mark.fast


class Peer:
    """The other end of the loop's socket."""

    def __init__(self, connection: socket.socket, stream: BinaryIO) -> None:
        self._connection = connection
        self._stream = stream

    def send(self, *messages: ToEngine) -> None:
        self._connection.sendall(b"".join(pack(message) for message in messages))

    def send_bytes(self, data: bytes) -> None:
        self._connection.sendall(data)

    def read(self) -> FromEngine:
        size = int.from_bytes(self._stream.read(4), "big")
        message: FromEngine = msgspec.msgpack.decode(self._stream.read(size), type=FromEngine)
        return message

    def read_progress(self) -> Progress:
        message = self.read()
        assert isinstance(message, Progress)
        return message

    def read_outputs_of(self, request_id: str) -> list[StepOutput]:
        """Return what comes for a request until it ends, which it must do well."""
        outputs, failed = self._read_end_of(request_id)
        assert failed is None
        return outputs

    def read_failure_of(self, request_id: str) -> Failed:
        """Return how a request failed; nothing may have come for it before."""
        outputs, failed = self._read_end_of(request_id)
        assert not outputs
        assert failed is not None
        return failed

    def _read_end_of(self, request_id: str) -> tuple[list[StepOutput], Failed | None]:
        outputs: list[StepOutput] = []
        while True:
            message = self.read()
            if isinstance(message, Failed) and message.request_id == request_id:
                return outputs, message
            if isinstance(message, Progress):
                outputs += [o for o in message.outputs if o.request_id == request_id]
            if outputs and outputs[-1].finish_reason is not None:
                return outputs, None

    def has_ended(self) -> bool:
        """Read to the end of what comes: it must end."""
        self._stream.read()
        return True


@contextmanager
def _loop(model: FakeDecoder, sign_seconds: float = 0.05) -> Iterator[Peer]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)

    def run() -> None:
        with theirs:
            EngineLoop(Engine(model), theirs, sign_seconds).run()

    thread = threading.Thread(target=run)
    thread.start()
    with ours, ours.makefile("rb") as stream:
        yield Peer(ours, stream)
        ours.shutdown(socket.SHUT_WR)
        stream.read()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_request_is_answered_step_by_step() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(make_request("a", max_tokens=3)))
        outputs = peer.read_outputs_of("a")
    assert [o.finish_reason for o in outputs] == [None, None, FinishReason.LENGTH]


def test_load_is_reported_before_a_step_runs() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(make_request("a")), Submit(make_request("b")))
        reports = [peer.read_progress()]
        while not reports[-1].outputs:
            reports.append(peer.read_progress())
    loads = [(report.num_running, report.num_waiting) for report in reports]
    assert loads[-2][0] == 1
    assert loads[-1] in {(1, 0), (1, 1)}


def test_an_idle_loop_gives_signs_of_life() -> None:
    with _loop(FakeDecoder()) as peer:
        signs = [peer.read() for _ in range(3)]
    assert signs == [Progress(0, 0)] * 3


def test_a_refused_request_fails_alone() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(make_request("bad", max_tokens=1000)), Submit(make_request("good")))
        assert "over the context" in peer.read_failure_of("bad").message
        assert len(peer.read_outputs_of("good")) == 4


class _Failing(FakeDecoder):
    """A decoder that fails at prompts with images."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        if batch.visual_features is not None:
            raise RuntimeError("secret /path at 0xdeadbeef")
        return super().forward(batch, cache)


def test_a_step_that_fails_ends_its_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    with _loop(_Failing()) as peer:
        peer.send(Submit(make_request("bad", num_images=1)), Submit(make_request("good")))
        failed = Failed("bad", "the engine failed while it ran the request")
        assert peer.read_failure_of("bad") == failed
        assert len(peer.read_outputs_of("good")) == 4
    assert "a step failed" in caplog.text


def test_a_running_request_is_cancelled_between_two_steps() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(make_request("a", num_text=2, max_tokens=60)))
        assert isinstance(peer.read(), Progress)
        peer.send(Cancel("a"), Submit(make_request("b")))
        last = peer.read_outputs_of("a")[-1]
        assert len(peer.read_outputs_of("b")) == 4
    if last.finish_reason is FinishReason.CANCELLED:
        assert last.token_id is None
    else:
        assert last.finish_reason is FinishReason.LENGTH


def test_cancelling_what_is_not_there_does_nothing() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Cancel("nobody"), Submit(make_request("a")))
        assert len(peer.read_outputs_of("a")) == 4


def test_what_is_no_message_ends_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send_bytes(b"\0\0\0\1\xc1")
        assert peer.has_ended()
    assert "the socket gave no message" in caplog.text


def test_the_loop_ends_with_its_socket_even_while_it_has_work() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(make_request("a", num_text=2, max_tokens=60)))
