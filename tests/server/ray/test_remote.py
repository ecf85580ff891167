"""Several engines as one service, over a handle whose engines do as they are told."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest
from fake_decoder import make_request

from skipserve.engine.reports import FinishReason, Ready, Retry, StepOutput
from skipserve.engine.request import Image, Request
from skipserve.errors import EngineError, InvalidRequestError, UnavailableError
from skipserve.ray.placing import Route
from skipserve.ray.remote import (
    Crew,
    FullError,
    LostError,
    Patience,
    RemoteEngines,
    route_of,
)
from skipserve.ray.wire import Accepted, CallReader, Fault, FromReplica, Outputs, pack
from skipserve.service.observer import Observer

pytestmark = pytest.mark.fast

T = TypeVar("T")
READY = Ready("cpu", "float32", "digest", 100)
CREW = Crew(READY, takes=True)
# What an engine does: sends a message, raises, or hangs for ever.
Act = FromReplica | Exception | None
HANGS = None


def tokens(*ids: int, ends: bool = False) -> Outputs:
    """Return the message that brings tokens, the last of them the answer's if it ends."""
    outputs = [StepOutput("r", token) for token in ids]
    if ends:
        outputs[-1] = StepOutput("r", ids[-1], finish_reason=FinishReason.LENGTH)
    return Outputs(tuple(outputs))


@dataclass
class Script:
    """A handle whose calls meet one list of acts after the other."""

    calls: list[list[Act]]
    requests: list[Request] = field(default_factory=list)
    avoided: list[tuple[str, ...]] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    num_closed: int = 0

    async def call(
        self, frame: bytes, route: Route, avoided: tuple[str, ...]
    ) -> AsyncGenerator[bytes, None]:
        self.requests.append(CallReader().read(frame))
        self.avoided.append(avoided)
        self.routes.append(route)
        try:
            for act in self.calls.pop(0):
                match act:
                    case None:
                        await asyncio.Event().wait()
                    case Exception():
                        raise act
                    case message:
                        yield pack(message)
        finally:
            self.num_closed += 1


class Counting(Observer):
    def __init__(self) -> None:
        self.retries: list[Retry] = []

    def record_retry(self, reason: Retry) -> None:
        self.retries.append(reason)


@dataclass
class Scene:
    """A service over a script, and what it did."""

    script: Script
    crew: Crew = CREW
    observer: Counting = field(default_factory=Counting)
    taken: list[str] = field(default_factory=list)
    got: list[int | None] = field(default_factory=list)

    def play(self, act: Callable[[RemoteEngines], Coroutine[Any, Any, T]]) -> T:
        """Run something with the service."""

        async def look() -> Crew:
            return self.crew

        async def run() -> T:
            patience = Patience(placing_seconds=0.05, silence_seconds=0.05)
            service = RemoteEngines(self.script, look, patience, self.observer)
            await service.start()
            await asyncio.sleep(0)
            try:
                return await act(service)
            finally:
                await service.close(grace_seconds=0)

        return asyncio.run(run())

    def ask(self, request: Request | None = None) -> list[StepOutput]:
        """Return what a request gives."""

        async def ask(service: RemoteEngines) -> list[StepOutput]:
            outputs = []
            stream = service.stream(request or make_request(), self.taken.append)
            async with aclosing(stream):
                async for output in stream:
                    self.got.append(output.token_id)
                    outputs.append(output)
            assert (service.num_running, service.num_waiting) == (0, 0)
            return outputs

        return self.play(ask)


def scene(*calls: list[Act]) -> Scene:
    return Scene(Script(list(calls)))


def test_an_answer_arrives() -> None:
    scenery = scene([Accepted("a"), tokens(5), Outputs(), tokens(6, 7, ends=True)])
    outputs = scenery.ask()
    assert [output.token_id for output in outputs] == [5, 6, 7]
    assert outputs[-1].finish_reason is FinishReason.LENGTH
    assert scenery.taken == ["a"]
    assert scenery.script.requests == [make_request()]
    assert scenery.script.num_closed == 1


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (LostError(), Retry.LOST),
        (Fault("a", "EngineError", "gone", is_lost=True), Retry.REFUSED),
        (HANGS, Retry.SILENT),
    ],
    ids=["lost", "refused", "silent"],
)
def test_a_request_goes_on_elsewhere(loss: Act, reason: Retry) -> None:
    scenery = scene([Accepted("a"), loss], [Accepted("b"), tokens(5, ends=True)])
    assert [output.token_id for output in scenery.ask()] == [5]
    assert scenery.script.avoided == [(), ("a",)]
    assert scenery.taken == ["a", "b"]
    assert scenery.observer.retries == [reason]
    assert scenery.script.num_closed == 2


def test_an_answer_that_has_begun_goes_on_elsewhere() -> None:
    scenery = scene(
        [Accepted("a"), tokens(5, 6), LostError()],
        [Accepted("b"), tokens(5), tokens(6, 7), tokens(8, ends=True)],
    )
    assert [output.token_id for output in scenery.ask()] == [5, 6, 7, 8]
    assert scenery.observer.retries == [Retry.LOST]


def test_an_answer_does_not_go_on_with_other_tokens() -> None:
    scenery = scene(
        [Accepted("a"), tokens(5, 6), LostError()], [Accepted("b"), tokens(5, 9, ends=True)]
    )
    with pytest.raises(EngineError, match="lost"):
        scenery.ask()
    assert scenery.got == [5, 6]
    assert scenery.script.num_closed == 2


def test_a_stream_that_ends_without_an_end_is_lost() -> None:
    scenery = scene([Accepted("a"), tokens(5)], [Accepted("b"), tokens(5, 6, ends=True)])
    assert [output.token_id for output in scenery.ask()] == [5, 6]


def test_it_goes_on_once() -> None:
    scenery = scene([Accepted("a"), LostError()], [Accepted("b"), LostError()])
    with pytest.raises(UnavailableError, match="try again later") as caught:
        scenery.ask()
    assert caught.value.retry_after_seconds is not None
    assert scenery.observer.retries == [Retry.LOST]
    assert not scenery.script.calls


def test_what_was_lost_on_the_way_goes_anywhere() -> None:
    scenery = scene([LostError()], [Accepted("a"), tokens(5, ends=True)])
    scenery.ask()
    assert scenery.script.avoided == [(), ()]


@pytest.mark.parametrize(
    ("act", "words"), [(FullError(), "busy"), (HANGS, "no engine has taken")], ids=["full", "none"]
)
def test_where_nobody_takes_it(act: Act, words: str) -> None:
    scenery = scene([act])
    with pytest.raises(UnavailableError, match=words):
        scenery.ask()
    assert scenery.taken == []
    assert scenery.observer.retries == []
    assert scenery.script.num_closed == 1


def test_what_an_engine_refuses_no_other_is_asked() -> None:
    scenery = scene([Accepted("a"), Fault("a", "InvalidRequestError", "too long", "messages")])
    with pytest.raises(InvalidRequestError, match="too long") as caught:
        scenery.ask()
    assert caught.value.param == "messages"
    assert scenery.observer.retries == []


def test_signs_of_life_keep_it_waiting() -> None:
    """Each sign comes in time, all together take longer than a silence may."""
    scenery = scene([])

    async def slow(
        frame: bytes, route: Route, avoided: tuple[str, ...]
    ) -> AsyncGenerator[bytes, None]:
        yield pack(Accepted("a"))
        for _ in range(4):
            await asyncio.sleep(0.02)
            yield pack(Outputs())
        yield pack(tokens(5, ends=True))

    scenery.script.call = slow  # type: ignore[method-assign]
    assert [output.token_id for output in scenery.ask()] == [5]
    assert scenery.observer.retries == []


def test_whoever_leaves_ends_the_call() -> None:
    scenery = scene([Accepted("a"), tokens(5), HANGS])

    async def leave(service: RemoteEngines) -> None:
        async with aclosing(service.stream(make_request())) as stream:
            await anext(stream)
            assert (service.num_running, service.num_waiting) == (1, 0)
        assert scenery.script.num_closed == 1
        assert (service.num_running, service.num_waiting) == (0, 0)

    scenery.play(leave)
    assert scenery.observer.retries == []


def test_whoever_leaves_before_it_is_taken_ends_the_call() -> None:
    scenery = scene([HANGS])

    async def leave(service: RemoteEngines) -> None:
        async with aclosing(service.stream(make_request())) as stream:
            waiting = asyncio.ensure_future(anext(stream))
            while not scenery.script.requests:
                await asyncio.sleep(0)
            assert (service.num_running, service.num_waiting) == (0, 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert scenery.script.num_closed == 1

    scenery.play(leave)


def test_the_time_that_has_passed_is_not_given_again() -> None:
    scenery = scene([Accepted("a"), HANGS], [Accepted("b"), tokens(5, ends=True)])
    scenery.ask(replace(make_request(), deadline_seconds=9.0))
    first, second = (request.deadline_seconds for request in scenery.script.requests)
    assert first is not None
    assert second is not None
    assert second <= first - 0.05


@pytest.mark.parametrize(
    ("crew", "words"),
    [
        (Crew(), "still loading"),
        (Crew(READY), "no engine is running"),
    ],
)
def test_without_engines_nothing_is_taken(crew: Crew, words: str) -> None:
    scenery = Scene(Script([]), crew)
    with pytest.raises(UnavailableError, match=words):
        scenery.ask()
    assert not scenery.script.requests


def test_engines_that_are_known_beforehand_take_requests_at_once() -> None:
    async def look() -> Crew:
        return CREW

    service = RemoteEngines(Script([]), look, crew=CREW)
    assert service.why_not_ready is None


def test_closing() -> None:
    scenery = scene()

    async def close(service: RemoteEngines) -> None:
        await service.wait_ready()
        assert service.is_alive
        assert service.why_not_ready is None
        await service.close(grace_seconds=0)
        await service.wait_closed()
        assert not service.is_alive
        assert service.why_not_ready == "the server is shutting down"

    scenery.play(close)


def test_engines_that_never_come() -> None:
    async def close(service: RemoteEngines) -> None:
        waiting = asyncio.ensure_future(service.wait_ready())
        await service.close(grace_seconds=0)
        with pytest.raises(EngineError, match="closed"):
            await waiting

    Scene(Script([]), Crew()).play(close)


def test_a_crew_that_cannot_be_asked_is_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    async def look() -> Crew:
        raise ZeroDivisionError

    async def run() -> None:
        service = RemoteEngines(Script([]), look)
        await service.start()
        await asyncio.sleep(0)
        assert service.why_not_ready == "the model is still loading"
        await service.close(grace_seconds=0)

    asyncio.run(run())
    assert "cannot be asked" in caplog.text


def _picture(digest: bytes) -> Image:
    return Image(b"", digest, 4)


def test_pictures_decide_where_a_request_goes() -> None:
    here = replace(make_request(num_images=2), images=(_picture(b"a"), _picture(b"b")))
    there = replace(here, prompt_ids=(*here.prompt_ids[:-1], 60))
    assert route_of(here) == route_of(there)
    turned = replace(here, images=here.images[::-1])
    assert route_of(here).content != route_of(turned).content
    assert route_of(here).policy == route_of(turned).policy


def test_without_pictures_the_beginning_decides() -> None:
    here = make_request(num_text=100)
    there = replace(here, prompt_ids=(*here.prompt_ids[:-1], 60))
    assert route_of(here) == route_of(there)
    other = replace(here, prompt_ids=(60, *here.prompt_ids[1:]))
    assert route_of(here).content != route_of(other).content
