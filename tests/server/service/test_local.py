"""The engine in a process of its own: answers, cancelling, and all the ways in which it can die."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import children
import pytest
import torch
from patience import slowness
from plan_strategies import without_generated_ffn
from prometheus_client import CollectorRegistry
from tiny_llava import make_checkpoint

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineSpec
from skipserve.engine.reports import Failed, FailureKind, FinishReason, StepOutput
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve.errors import (
    EngineError,
    InvalidRequestError,
    RequestTimeoutError,
    UnavailableError,
)
from skipserve.metrics.registry import ServerMetrics
from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve.service import ipc
from skipserve.service import local as service_module
from skipserve.service.ipc import spec_to_json
from skipserve.service.local import EngineService, _to_error
from skipserve.service.messages import Submit, ToEngine
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import Plan, TokenClass, trim

T = TypeVar("T")
NUM_LAYERS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("service") / "model", num_layers=NUM_LAYERS)


@pytest.fixture(scope="module")
def spec(folder: Path) -> EngineSpec:
    return EngineSpec(folder, device="cpu", dtype="float32", num_threads=1)


@pytest.fixture(scope="module")
def config(folder: Path) -> ModelConfig:
    return ModelConfig.from_folder(folder)


class Running:
    """A service with the event loop that it lives in."""

    def __init__(self, runner: asyncio.Runner, service: EngineService) -> None:
        self.service = service
        self._runner = runner

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(scenario)


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture(scope="module")
def running(spec: EngineSpec, registry: CollectorRegistry) -> Iterator[Running]:
    """One healthy engine for all tests that leave it healthy."""
    with asyncio.Runner() as runner:
        running = Running(runner, EngineService(spec, ServerMetrics(registry, "tiny", ()).engine))
        running.run(_start(running.service))
        yield running
        running.run(running.service.close(grace_seconds=5))


async def _start(service: EngineService) -> None:
    await service.start()
    await service.wait_ready()


def _request(config: ModelConfig, request_id: str = "r", max_tokens: int = 4) -> Request:
    vision = config.sizes.vision
    visual = (config.image_token_id,) * config.sizes.rows_per_image
    segments = [(TokenClass.TEXT, 2), (TokenClass.VISUAL, len(visual)), (TokenClass.TEXT, 3)]
    return Request(
        id=request_id,
        prompt_ids=(1, 20, *visual, 21, 22, 23),
        token_classes=prompt_classes(segments),
        images=(
            Image(
                bytes(vision.input_bytes),
                b"digest",
                config.sizes.rows_per_image,
            ),
        ),
        sampling=SamplingParams(max_tokens, temperature=0, ends_at_eos=False),
        policy_name="full",
        plan=trim(Plan.full(NUM_LAYERS)),
    )


def _longest(config: ModelConfig, request_id: str = "long") -> Request:
    request = _request(config, request_id)
    max_tokens = config.max_positions - request.num_prompt
    return replace(request, sampling=replace(request.sampling, max_tokens=max_tokens))


async def _drain(stream: AsyncGenerator[StepOutput, None]) -> None:
    async for _ in stream:
        pass


async def _tokens(service: EngineService, request: Request) -> list[int | None]:
    return [output.token_id async for output in service.stream(request)]


def _without_ffn(config: ModelConfig, request_id: str, layer: int) -> Request:
    """Return a request whose plan skips the FFN of generated rows at one layer."""
    plan = without_generated_ffn(NUM_LAYERS, layer)
    return replace(_request(config, request_id), plan=trim(plan))


def test_a_plan_is_sent_once(
    running: Running, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Submit] = []

    def pack(message: ToEngine) -> bytes:
        if isinstance(message, Submit):
            sent.append(message)
        return ipc.pack(message)

    monkeypatch.setattr(service_module, "pack", pack)
    request = _without_ffn(config, "first", 0)
    first = running.run(_tokens(running.service, request))
    second = running.run(_tokens(running.service, replace(request, id="second")))
    assert first == second
    assert isinstance(request.plan, Plan)
    assert [message.request.plan for message in sent] == [request.plan, request.plan.key]


def test_an_engine_that_does_not_know_a_plan_is_sent_it_again(
    running: Running, config: ModelConfig
) -> None:
    """As one that has forgotten it, or was started anew."""
    request = _without_ffn(config, "again", 1)
    assert isinstance(request.plan, Plan)
    running.service._sent.add(request.plan.key)
    tokens = running.run(_tokens(running.service, request))
    assert tokens == running.run(_tokens(running.service, replace(request, id="known")))
    assert len(tokens) == 4


def test_a_request_that_was_cancelled_meanwhile_is_not_sent_again(
    running: Running, config: ModelConfig
) -> None:
    request = _without_ffn(config, "gone", 2)
    assert isinstance(request.plan, Plan)
    service = running.service
    service._sent.add(request.plan.key)

    async def ask_and_leave() -> None:
        async with aclosing(service.stream(request)) as stream:
            asking = asyncio.ensure_future(anext(stream))
            while not service._streams:
                await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        assert service._streams
        while service._streams:
            await asyncio.sleep(0.01)

    running.run(ask_and_leave())
    assert running.run(_tokens(service, replace(request, id="later")))


def test_many_plans_are_not_remembered_without_bound(
    running: Running, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_MAX_SENT", 2)
    running.service._sent.clear()
    for layer in range(3):
        running.run(_tokens(running.service, _without_ffn(config, f"many-{layer}", layer)))
    assert len(running.service._sent) <= 2


def test_an_answer_equals_that_of_the_engine_without_a_process(
    running: Running, config: ModelConfig, folder: Path
) -> None:
    request = _request(config)
    engine = Engine(Llava.load(folder, torch.device("cpu"), torch.float32))
    engine.add(request)
    wanted = []
    while engine.has_work:
        wanted += [output.token_id for output in engine.step().outputs]
    assert running.run(_tokens(running.service, request)) == wanted


def test_requests_at_once_get_their_own_answers(running: Running, config: ModelConfig) -> None:
    async def scenario() -> list[list[int | None]]:
        requests = [_request(config, str(i), max_tokens=i + 1) for i in range(5)]
        return await asyncio.gather(*(_tokens(running.service, r) for r in requests))

    answers = running.run(scenario())
    assert [len(answer) for answer in answers] == [1, 2, 3, 4, 5]
    assert all(answers[4][: len(answer)] == answer for answer in answers)


def test_an_observer_that_fails_ends_nothing(
    running: Running,
    config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it fails at is logged once, not at each step."""
    expected = running.run(_tokens(running.service, _request(config, "heard")))

    def record_step(report: object) -> None:
        raise ValueError("counters never fall")

    monkeypatch.setattr(running.service._observer, "record_step", record_step)
    for name in ("one", "two"):
        assert running.run(_tokens(running.service, _request(config, name))) == expected
    assert [it.exc_info[1] and str(it.exc_info[1]) for it in caplog.records if it.exc_info] == [
        "counters never fall"
    ]


def test_load_is_reported(running: Running, config: ModelConfig) -> None:
    service = running.service

    async def scenario() -> None:
        async with aclosing(service.stream(_longest(config))) as first:
            await anext(first)
            assert (service.num_running, service.num_waiting) == (1, 0)
            burst = [
                asyncio.create_task(_tokens(service, _request(config, str(i)))) for i in range(3)
            ]
            await asyncio.sleep(0)
            # The engine has not heard of them yet.
            assert (service.num_running, service.num_waiting) == (1, 3)
            await asyncio.gather(*burst)

    running.run(scenario())
    running.run(_settle(service))


async def _settle(service: EngineService) -> None:
    """Wait until the engine has ended what was given up."""
    while service.num_running or service.num_waiting:
        await asyncio.sleep(0.001)


def test_closing_a_stream_cancels_the_request(running: Running, config: ModelConfig) -> None:
    service = running.service

    async def scenario() -> int:
        async with aclosing(service.stream(_longest(config))) as stream:
            await anext(stream)
        return len(await _tokens(service, _request(config)))

    assert running.run(scenario()) == 4
    running.run(_settle(service))


def test_clients_that_drop_at_any_point_leave_nothing(
    running: Running, config: ModelConfig
) -> None:
    service = running.service

    async def drop(number: int) -> None:
        async with aclosing(service.stream(_request(config, str(number), max_tokens=5))) as stream:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.003 * (number % 20)):
                    await _drain(stream)

    async def scenario() -> list[int | None]:
        await asyncio.gather(*(drop(number) for number in range(100)))
        return await _tokens(service, _request(config, "last"))

    alone = running.run(_tokens(service, _request(config)))
    assert running.run(scenario()) == alone
    running.run(_settle(service))


def test_a_refused_request_fails_alone(running: Running, config: ModelConfig) -> None:
    service = running.service
    bad = replace(_request(config), images=())

    async def scenario() -> None:
        with pytest.raises(InvalidRequestError, match="0 images need 0 image tokens"):
            await _tokens(service, bad)
        assert len(await _tokens(service, _request(config))) == 4

    running.run(scenario())


def test_a_request_too_large_to_hand_over_is_invalid(running: Running, config: ModelConfig) -> None:
    request = _request(config)
    large = replace(request.images[0], pixels=bytes(65 * 2**20))
    with pytest.raises(InvalidRequestError, match="too large"):
        running.run(_tokens(running.service, replace(request, images=(large,))))
    assert running.service.num_waiting == 0


@pytest.mark.parametrize(
    ("queue_seconds", "deadline_seconds", "words"),
    [(1e-9, None, "waited too long.*try again"), (None, 1e-9, "timeout_seconds")],
)
def test_a_request_whose_time_is_over_is_told_so(
    running: Running,
    config: ModelConfig,
    queue_seconds: float | None,
    deadline_seconds: float | None,
    words: str,
) -> None:
    request = replace(
        _request(config), queue_seconds=queue_seconds, deadline_seconds=deadline_seconds
    )
    with pytest.raises(RequestTimeoutError, match=words):
        running.run(_tokens(running.service, request))
    running.run(_settle(running.service))


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_has_its_error(kind: FailureKind) -> None:
    error = _to_error(Failed("r", "it failed", kind))
    assert error.message.startswith("it failed")
    assert isinstance(error, UnavailableError) == (kind is FailureKind.OUT_OF_MEMORY)
    assert error.reason == kind.value


def test_work_is_counted(
    running: Running, registry: CollectorRegistry, config: ModelConfig
) -> None:
    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"skipserve_{name}", {"model": "tiny", **labels}) or 0.0

    def counts() -> tuple[float, float, float, float]:
        inline = {"skip_policy": "inline"}
        return (
            value("generated_tokens_total", **inline),
            value("executed_flops_total", **inline),
            value("engine_step_seconds_count"),
            value("encoder_cache_queries_total"),
        )

    before = counts()
    request = replace(_request(config, max_tokens=3), cache_salt="of its own")
    running.run(_tokens(running.service, request))
    running.run(_settle(running.service))
    tokens, flops, steps, images = (now - then for now, then in zip(counts(), before, strict=True))
    assert (tokens, steps, images) == (3, 3, 1)
    assert flops > 0
    assert value("engine_up") == 1
    assert value("kv_cache_pages", state="free") > 0
    assert value("integrity_faults") == 0


def test_signals_are_left_to_the_parent(running: Running, config: ModelConfig) -> None:
    assert running.service.pid is not None
    os.kill(running.service.pid, signal.SIGINT)
    os.kill(running.service.pid, signal.SIGTERM)
    assert len(running.run(_tokens(running.service, _request(config)))) == 4


def test_the_socket_is_nowhere_in_the_file_system(running: Running) -> None:
    """No other user can connect to the engine, and no other process can find it."""
    links = [os.readlink(fd) for fd in Path(f"/proc/{running.service.pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    # Columns: number, references, protocol, flags, type, state, inode and, if there is one, a path.
    table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    names = [row[7:] for row in table if row[6] in inodes]
    assert names
    assert not any(names)


def _scenario(
    spec: EngineSpec, scenario: Any, registry: CollectorRegistry | None = None
) -> EngineService:
    """Run a scenario on an engine of its own; return the service as it is in the end."""

    async def run() -> EngineService:
        metrics = None if registry is None else ServerMetrics(registry, "tiny", ()).engine
        service = EngineService(spec, metrics)
        try:
            await service.start()
            await scenario(service)
        finally:
            await service.close(grace_seconds=0)
        return service

    return asyncio.run(run())


def test_before_the_model_is_loaded_there_is_no_service(
    spec: EngineSpec, config: ModelConfig
) -> None:
    async def scenario(service: EngineService) -> None:
        assert service.is_alive
        assert service.why_not_ready == "the model is still loading"
        with pytest.raises(UnavailableError, match="loading"):
            await _tokens(service, _request(config))

    service = _scenario(spec, scenario)
    assert not service.is_alive


def test_a_killed_engine_ends_its_streams(spec: EngineSpec, config: ModelConfig) -> None:
    async def scenario(service: EngineService) -> None:
        await service.wait_ready()
        async with aclosing(service.stream(_longest(config))) as stream:
            await anext(stream)
            waiting = asyncio.create_task(_tokens(service, _request(config)))
            await asyncio.sleep(0)
            assert service.pid is not None
            os.kill(service.pid, signal.SIGKILL)
            with pytest.raises(EngineError, match="stopped") as raised:
                await _drain(stream)
        assert raised.value.reason == "engine"
        with pytest.raises(EngineError, match="stopped"):
            await waiting
        assert service.why_not_ready == "the engine is not running"
        await service.wait_closed()
        with pytest.raises(EngineError, match="the engine has died: SIGKILL"):
            await _tokens(service, _request(config))

    registry = CollectorRegistry()
    # Not for its silence.
    service = _scenario(replace(spec, stall_seconds=86_400), scenario, registry)
    assert service.failure is not None
    assert (service.num_running, service.num_waiting) == (0, 0)
    labels = {"model": "tiny", "reason": "engine"}
    assert registry.get_sample_value("skipserve_request_failures_total", labels) == 2


@pytest.mark.fast
@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("sys.exit(3)", "the engine has died: exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the engine has died: SIGKILL"),
        ("os.kill(os.getpid(), 40)", "the engine has died: signal 40"),
        ("os.close(socket); time.sleep(60)", "the engine has died: it hung on its way out"),
        ("os.write(socket, bytes(5)); time.sleep(60)", "the engine sent something that is not"),
    ],
)
def test_how_an_engine_ended_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ending: str, words: str
) -> None:
    def start(_: EngineSpec, connection: socket.socket) -> subprocess.Popen[bytes]:
        begin = f"import os, signal, sys, time; socket = {connection.fileno()}"
        return subprocess.Popen(
            [sys.executable, "-S", "-c", f"{begin}; {ending}"], pass_fds=[connection.fileno()]
        )

    async def scenario(service: EngineService) -> None:
        with pytest.raises(EngineError, match=words):
            await service.wait_ready()

    monkeypatch.setattr(service_module, "_start_process", start)
    monkeypatch.setattr(service_module, "_EXIT_SECONDS", 0.1 if "sleep" in ending else 86_400)
    _scenario(EngineSpec(Path("nowhere")), scenario)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith(words)


def test_a_hung_engine_is_seen_and_then_killed(spec: EngineSpec, config: ModelConfig) -> None:
    async def scenario(service: EngineService) -> None:
        await service.wait_ready()
        assert service.pid is not None
        os.kill(service.pid, signal.SIGSTOP)
        while service.is_alive:
            await asyncio.sleep(0.01)
        assert service.why_not_ready == "the engine makes no progress"
        assert service.failure is None
        with pytest.raises(EngineError, match="stopped"):
            await _tokens(service, _request(config))
        await service.wait_closed()

    service = _scenario(replace(spec, stall_seconds=0.5 * slowness()), scenario)
    assert service.failure is not None
    assert "no progress" in service.failure.message


def test_a_folder_without_a_model_is_told(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario(service: EngineService) -> None:
        with pytest.raises(EngineError, match=r"config\.json") as raised:
            await service.wait_ready()
        assert str(tmp_path) not in raised.value.message
        await service.wait_closed()

    assert not _scenario(replace(spec, model=tmp_path / "empty"), scenario).is_alive


def test_loading_has_a_limit(spec: EngineSpec) -> None:
    async def scenario(service: EngineService) -> None:
        with pytest.raises(EngineError, match=r"did not load within 0\.05 seconds"):
            await service.wait_ready()

    _scenario(replace(spec, load_seconds=0.05), scenario)


def test_running_requests_finish_within_the_grace(spec: EngineSpec, config: ModelConfig) -> None:
    async def scenario(service: EngineService) -> None:
        await service.wait_ready()
        stream = service.stream(_request(config, max_tokens=50))
        await anext(stream)
        closing = asyncio.create_task(service.close(grace_seconds=86_400))
        await asyncio.sleep(0)
        assert service.why_not_ready == "the server is shutting down"
        with pytest.raises(UnavailableError, match="shutting down"):
            await _tokens(service, _request(config, "late"))
        outputs = [output async for output in stream]
        assert outputs[-1].finish_reason is FinishReason.LENGTH
        await closing

    assert _scenario(spec, scenario).failure is None


def test_an_engine_does_not_outlive_its_parent(spec: EngineSpec) -> None:
    code = f"""
import asyncio
import contextlib
from skipserve.service.ipc import spec_from_json
from skipserve.service.local import EngineService, _to_error

async def main():
    service = EngineService(spec_from_json({spec_to_json(spec)!r}))
    await service.start()
    await service.wait_ready()
    print(service.pid, flush=True)
    await service.wait_closed()

asyncio.run(main())
"""
    command = [sys.executable, "-c", code]
    with children.running(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        engine = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            select.select([engine], [], [])
        finally:
            os.close(engine)
