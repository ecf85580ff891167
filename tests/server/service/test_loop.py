"""The loop of the engine process, in a thread and at the other end of a socket."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

import msgspec
import pytest
import torch
from fake_decoder import FakeDecoder, make_request, plan_of
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import Failed, FailureKind, FinishReason, StepOutput
from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache
from skipserve.service.ipc import pack
from skipserve.service.loop import EngineLoop
from skipserve.service.messages import Cancel, FromEngine, PlanWanted, Progress, Submit, ToEngine

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
        outputs, failed = self.read_end_of(request_id)
        assert failed is None
        return outputs

    def read_failure_of(self, request_id: str) -> Failed:
        """Return how a request failed; nothing may have come for it before."""
        outputs, failed = self.read_end_of(request_id)
        assert not outputs
        assert failed is not None
        return failed

    def read_end_of(self, request_id: str) -> tuple[list[StepOutput], Failed | None]:
        """Return what comes for a request until it ends, and how it failed if it did."""
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
def _loop(
    model: FakeDecoder, sign_seconds: float = 0.05, limits: EngineLimits | None = None
) -> Iterator[Peer]:
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            EngineLoop(Engine(model, limits), theirs, sign_seconds).run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with ours, ours.makefile("rb") as stream:
            yield Peer(ours, stream)
            ours.shutdown(socket.SHUT_WR)
            stream.read()
    finally:
        thread.join()


def test_a_request_is_answered_step_by_step() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(make_request("a", max_tokens=3)))
        outputs = peer.read_outputs_of("a")
    assert [o.finish_reason for o in outputs] == [None, None, FinishReason.LENGTH]


def test_a_step_is_reported_with_its_state_and_what_it_did() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(make_request("a", num_text=3)), Submit(make_request("b", num_text=3)))
        reports = [peer.read_progress()]
        while reports[-1].step is None:
            reports.append(peer.read_progress())
    last = reports[-1]
    assert last.step is not None
    assert last.step.executed["full"].flops > 0
    # Both came before the step, or the second one just after it.
    assert (last.step.num_sequences, last.step.num_rows) in {(2, 10), (1, 5)}
    assert last.state.num_running == last.step.num_sequences == len(last.outputs)
    assert 0 < last.state.num_pages_used < last.state.num_pages


def test_a_plan_that_is_not_known_is_asked_for() -> None:
    request = make_request("a", max_tokens=2)
    key = plan_of(request).key
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(replace(request, plan=key)))
        while not isinstance(message := peer.read(), PlanWanted):
            assert isinstance(message, Progress)
        assert message.request_id == "a"
        peer.send(Submit(request))
        first = peer.read_outputs_of("a")
        peer.send(Submit(replace(request, id="b", plan=key)))
        second = peer.read_outputs_of("b")
    assert [o.token_id for o in first] == [o.token_id for o in second]


def test_an_idle_loop_gives_signs_of_life() -> None:
    with _loop(FakeDecoder()) as peer:
        signs = [peer.read_progress() for _ in range(3)]
    assert [(sign.outputs, sign.step, sign.state.num_running) for sign in signs] == [
        ((), None, 0)
    ] * 3


def test_a_refused_request_fails_alone() -> None:
    with _loop(FakeDecoder()) as peer:
        peer.send(Submit(make_request("bad", max_tokens=1000)), Submit(make_request("good")))
        failed = peer.read_failure_of("bad")
        assert "over the context" in failed.message
        assert failed.kind is FailureKind.INVALID
        assert len(peer.read_outputs_of("good")) == 4


@pytest.mark.parametrize(
    ("queue_seconds", "deadline_seconds", "kind"),
    [(1e-9, None, FailureKind.QUEUE_TIMEOUT), (None, 1e-9, FailureKind.DEADLINE)],
)
def test_a_request_whose_time_is_over_fails_before_it_runs(
    queue_seconds: float | None, deadline_seconds: float | None, kind: FailureKind
) -> None:
    with _loop(FakeDecoder()) as peer:
        late = replace(
            make_request("late"), queue_seconds=queue_seconds, deadline_seconds=deadline_seconds
        )
        peer.send(Submit(late), Submit(make_request("good")))
        assert peer.read_failure_of("late").kind is kind
        assert len(peer.read_outputs_of("good")) == 4


def test_an_idle_loop_tells_at_once_that_a_request_is_gone() -> None:
    with _loop(FakeDecoder(), sign_seconds=60) as peer:
        peer.send(Submit(replace(make_request("late"), deadline_seconds=1e-9)))
        assert peer.read_failure_of("late").kind is FailureKind.DEADLINE
        assert peer.read_progress().state.num_waiting == 0


class _Failing(FakeDecoder):
    """A decoder that fails at prompts with images."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        if batch.visual_features is not None:
            raise RuntimeError("secret /path at 0xdeadbeef")
        return super().forward(batch, cache)


def test_a_step_that_fails_ends_what_ran_and_not_the_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with _loop(_Failing()) as peer:
        peer.send(Submit(make_request("bad", num_images=1)))
        failed = Failed("bad", "the engine failed while it ran the request", FailureKind.ENGINE)
        assert peer.read_failure_of("bad") == failed
        peer.send(Submit(make_request("good")))
        assert len(peer.read_outputs_of("good")) == 4
    assert "a step failed" in caplog.text


class _Full(FakeDecoder):
    """A decoder whose device has no memory for prompts with images."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        if batch.visual_features is not None:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return super().forward(batch, cache)


def test_a_device_out_of_memory_fails_one_request_and_not_the_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with _loop(_Full()) as peer:
        peer.send(Submit(make_request("good")), Submit(make_request("bad", num_images=1)))
        failed = peer.read_failure_of("bad")
        assert failed.kind is FailureKind.OUT_OF_MEMORY
        assert "GiB" not in failed.message
        assert len(peer.read_outputs_of("good")) == 4
    assert "GiB" in caplog.text


class _FullAtLast(FakeDecoder):
    """A decoder whose device has no memory for the third row of an answer."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        if int(batch.positions[0]) == 7:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return super().forward(batch, cache)


def test_the_last_tokens_of_a_request_come_before_its_failure() -> None:
    limits = EngineLimits(looks_ahead=True)
    with _loop(_FullAtLast(), limits=limits) as peer:
        peer.send(Submit(make_request("a", num_text=3)))
        outputs, failed = peer.read_end_of("a")
    assert len(outputs) == 3
    assert failed is not None
    assert failed.kind is FailureKind.OUT_OF_MEMORY


class _Broken(FakeDecoder):
    """A decoder whose device is lost."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        raise torch.AcceleratorError("an illegal memory access was encountered")


def test_a_lost_device_ends_the_loop() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(pack(Submit(make_request())))
        with pytest.raises(torch.AcceleratorError):
            EngineLoop(Engine(_Broken()), theirs, sign_seconds=0.05).run()
        ours.shutdown(socket.SHUT_RDWR)


class _Interrupted(FakeDecoder):
    """A decoder during whose first step something happens."""

    def __init__(self) -> None:
        super().__init__()
        self.happenings: list[Callable[[], None]] = []

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        if self.happenings:
            self.happenings.pop()()
        return super().forward(batch, cache)


def test_a_cancel_takes_effect_within_one_step() -> None:
    ours, theirs = socket.socketpair()
    model = _Interrupted()
    loop = EngineLoop(Engine(model), theirs, sign_seconds=0.05)

    def cancel() -> None:
        ours.sendall(pack(Cancel("a")))
        ours.shutdown(socket.SHUT_WR)
        while loop._inbox.empty():
            pass

    model.happenings.append(cancel)
    with ours, theirs, ours.makefile("rb") as stream:
        ours.sendall(pack(Submit(make_request("a", max_tokens=40))))
        loop.run()
        outputs = Peer(ours, stream).read_outputs_of("a")
    assert [output.finish_reason for output in outputs] == [None, FinishReason.CANCELLED]
    assert outputs[-1].token_id is None


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
