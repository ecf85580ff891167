"""A replica's side of the wire, over an engine that does as it is told."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from fake_decoder import make_request

from skipserve.engine.reports import FinishReason, Ready, StepOutput
from skipserve.engine.request import Request
from skipserve.errors import EngineError, InvalidRequestError, SkipserveError
from skipserve.ray.engine import Answering, batched, end_with
from skipserve.ray.wire import Accepted, CallWriter, Fault, FromReplica, Outputs, read
from skipserve.service.service import OnTaken

pytestmark = pytest.mark.fast

END = StepOutput("r", 6, finish_reason=FinishReason.LENGTH)


class Played:
    """An engine that gives some outputs, then raises or hangs."""

    def __init__(self, *outputs: StepOutput, error: Exception | None = None) -> None:
        self.ready: Ready | None = Ready("cpu", "float32", "digest", 100)
        self.failure: EngineError | None = None
        self.is_alive = True
        self.why_not_ready: str | None = None
        self.num_running = self.num_waiting = 0
        self.num_closed = 0
        self.requests: list[Request] = []
        self.gone = asyncio.Event()
        self._outputs = outputs
        self._error = error

    async def start(self) -> None:
        raise NotImplementedError

    async def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        self.requests.append(request)
        try:
            for output in self._outputs:
                yield output
            if self._error is not None:
                raise self._error
            if not self._outputs or self._outputs[-1] is not END:
                await asyncio.Event().wait()
        finally:
            self.num_closed += 1

    async def wait_ready(self) -> None:
        raise NotImplementedError

    async def wait_closed(self) -> None:
        await self.gone.wait()

    async def close(self, grace_seconds: float) -> None:
        raise NotImplementedError


def call(engine: Played, at_most: int = 100) -> list[FromReplica]:
    """Return the messages of a call, or the first of them."""

    async def run() -> list[FromReplica]:
        messages: list[FromReplica] = []
        answering = Answering(engine, "a", sign_seconds=0.02)
        async with aclosing(answering.answer(CallWriter().write(make_request()))) as frames:
            async for frame in frames:
                messages.append(read(frame))
                if len(messages) == at_most:
                    break
        return messages

    return asyncio.run(run())


def test_an_answer_is_told() -> None:
    engine = Played(StepOutput("r", 5), END)
    first, *others = call(engine)
    assert first == Accepted("a")
    told = [output for it in others if isinstance(it, Outputs) for output in it.outputs]
    assert told == [StepOutput("r", 5), END]
    assert engine.requests == [make_request()]
    assert engine.num_closed == 1


def test_an_engine_that_takes_nothing_sends_it_elsewhere() -> None:
    engine = Played()
    engine.why_not_ready = "the model is still loading"
    (fault,) = call(engine)
    assert fault == Fault("a", "UnavailableError", "the model is still loading", is_lost=True)
    assert not engine.requests


@pytest.mark.parametrize("error", [InvalidRequestError("no", "messages"), EngineError("failed")])
def test_what_an_engine_says_of_a_request_is_told(error: SkipserveError) -> None:
    fault = call(Played(StepOutput("r", 5), error=error))[-1]
    assert fault == Fault.of("a", error, is_lost=False)


def test_an_engine_that_is_gone_is_lost() -> None:
    class Dying(Played):
        async def stream(
            self, request: Request, on_taken: OnTaken | None = None
        ) -> AsyncGenerator[StepOutput, None]:
            self.why_not_ready = "the engine is not running"
            raise EngineError("the engine stopped")
            yield END

    first, fault = call(Dying())
    assert first == Accepted("a")
    assert fault == Fault("a", "EngineError", "the engine stopped", is_lost=True)


def test_signs_of_life() -> None:
    engine = Played(StepOutput("r", 5))
    messages = call(engine, at_most=4)
    assert messages[1:] == [Outputs((StepOutput("r", 5),)), Outputs(), Outputs()]
    assert engine.num_closed == 1


def test_outputs_that_are_there_travel_together() -> None:
    """All that come while the one before is sent."""

    async def source() -> AsyncGenerator[StepOutput, None]:
        for token in range(5):
            yield StepOutput("r", token)

    async def run() -> list[tuple[StepOutput, ...]]:
        return [batch async for batch in batched(source(), 1.0)]

    batches = asyncio.run(run())
    assert [output.token_id for batch in batches for output in batch] == [0, 1, 2, 3, 4]
    assert len(batches) == 1


@pytest.mark.parametrize("failure", [None, EngineError("the engine has died")])
def test_a_replica_ends_with_its_engine(failure: EngineError | None) -> None:
    async def run() -> list[int]:
        engine, codes = Played(), list[int]()
        ending = asyncio.create_task(end_with(engine, codes.append))
        await asyncio.sleep(0)
        assert not codes
        engine.failure = failure
        engine.gone.set()
        await ending
        return codes

    assert asyncio.run(run()) == ([] if failure is None else [1])
