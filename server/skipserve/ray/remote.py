"""Engines of other processes as one service: a request that loses its engine goes on. No Ray."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from skipserve.digests import digest_of
from skipserve.engine.reports import Ready, Retry, StepOutput
from skipserve.engine.request import Request
from skipserve.errors import EngineError, UnavailableError
from skipserve.ray.placing import Route
from skipserve.ray.told import DivergedError, Told
from skipserve.ray.wire import Accepted, CallWriter, Fault, FromReplica, Outputs, read
from skipserve.service.observer import Observer
from skipserve.service.service import OnTaken
from skipserve_policies.plan import Plan

logger = logging.getLogger(__name__)

# Of a prompt without pictures: what templates and system prompts share, and few questions do.
_BEGINNING_TOKENS = 64
_LOOK_SECONDS = 1.0
# What is left of a request's time when another engine goes on with it, at least.
_LEAST_SECONDS = 0.001


class LostError(Exception):
    """The engine that had a request is gone, or the way to it."""


class FullError(Exception):
    """No engine has room for a request."""


class Handle(Protocol):
    """The way to the engines."""

    def call(
        self, frame: bytes, route: Route, avoided: tuple[str, ...]
    ) -> AsyncGenerator[bytes, None]:
        """Have an engine run a request, and yield its messages; closing the generator cancels it.

        Args:
            frame: the call.
            route: what decides which engine takes it.
            avoided: the names of those that may not.

        Raises:
            FullError: none has room.
            LostError: the engine is gone.
        """


@dataclass(frozen=True)
class Crew:
    """What is known of the engines.

    Attributes:
        ready: what all of them have loaded, with the smallest of their caches; None until one has.
        takes: whether there is one that takes requests, or would be started for one.
    """

    ready: Ready | None = None
    takes: bool = False


@dataclass(frozen=True)
class Patience:
    """How long a try may take.

    Attributes:
        placing_seconds: until an engine has taken the request.
        silence_seconds: from one message to the next: engines give signs of life.
    """

    placing_seconds: float = 10.0
    silence_seconds: float = 10.0


class _TryError(Exception):
    """A try has failed at its engine, which has a name where it had taken the request."""

    def __init__(self, reason: Retry, engine: str) -> None:
        super().__init__(f"{reason} {engine}")
        self.reason, self.engine = reason, engine


class RemoteEngines:
    """Several engines as one.

    A request that loses its engine goes on in another one, once, whether its answer has begun or
    not: that one runs it from its beginning, and what has been told of it is not told again. Its
    tokens hang on the request alone; should they be others all the same, it fails.

    Attributes:
        failure: None, for engines that die are replaced.

    Args:
        handle: the way to them.
        look: returns what is known of them.
        patience: how long a try may take.
        observer: hears of requests that go on elsewhere.
        crew: what is known of them beforehand.
    """

    def __init__(
        self,
        handle: Handle,
        look: Callable[[], Awaitable[Crew]],
        patience: Patience = Patience(),
        observer: Observer | None = None,
        crew: Crew = Crew(),
    ) -> None:
        self.failure: EngineError | None = None
        self._handle = handle
        self._look = look
        self._patience = patience
        self._observer = observer or Observer()
        self._writer = CallWriter()
        self._crew = crew
        self._is_closing = False
        # By their ids: all requests under way, and those of them whose answers have begun.
        self._inside: set[str] = set()
        self._running: set[str] = set()
        self._looking: asyncio.Task[None] | None = None
        self._loaded, self._idle, self._closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()
        # How many there are at each engine, that one says itself.
        self._observer.watch_engine(
            lambda: self.why_not_ready is None, lambda: 0, lambda: 0, lambda: None
        )

    @property
    def ready(self) -> Ready | None:
        """What was loaded; None until then."""
        return self._crew.ready

    @property
    def is_alive(self) -> bool:
        """Whether it does its work: engines may come and go."""
        return not self._closed.is_set()

    @property
    def why_not_ready(self) -> str | None:
        """Why it takes no requests, in words for anyone; None while it takes them."""
        if self._is_closing:
            return "the server is shutting down"
        if self.ready is None:
            return "the model is still loading"
        return None if self._crew.takes else "no engine is running"

    @property
    def num_running(self) -> int:
        """Requests whose answers have begun."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests whose answers have not."""
        return len(self._inside) - len(self._running)

    async def start(self) -> None:
        """Begin to look for engines, and return at once."""
        self._looking = asyncio.create_task(self._keep_looking())

    async def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        """Run a request and yield what each step gives it; closing the generator cancels it.

        Args:
            request: what is asked.
            on_taken: hears which engine has taken it, of each try.

        Raises:
            UnavailableError: no engine takes it, or those that did are gone.
            EngineError: it failed there, or another engine came to other tokens.
            SkipserveError: the engine has refused it.
        """
        if (why := self.why_not_ready) is not None:
            raise UnavailableError(why)
        self._inside.add(request.id)
        self._idle.clear()
        try:
            async with aclosing(self._run(request, on_taken or _ignore)) as outputs:
                async for output in outputs:
                    self._running.add(request.id)
                    yield output
        finally:
            self._inside.discard(request.id)
            self._running.discard(request.id)
            if not self._inside:
                self._idle.set()

    async def wait_ready(self) -> None:
        """Return when an engine has loaded the model.

        Raises:
            EngineError: it was closed before that.
        """
        await self._loaded.wait()
        if self.ready is None:
            raise EngineError("the server was closed")

    async def wait_closed(self) -> None:
        """Return when it has been closed."""
        await self._closed.wait()

    async def close(self, grace_seconds: float) -> None:
        """Refuse new requests, let those under way finish within the grace, and let go."""
        self._is_closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._loaded.set()
        self._closed.set()

    async def _keep_looking(self) -> None:
        while True:
            try:
                self._crew = await self._look()
            except Exception:
                # What was known stays known; requests find out on their own.
                logger.exception("what engines there are cannot be asked")
            if self.ready is not None:
                self._loaded.set()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _run(self, request: Request, on_taken: OnTaken) -> AsyncGenerator[StepOutput, None]:
        """Yield a request's outputs, of one engine or of two."""
        told, avoided, begun = Told(), tuple[str, ...](), time.monotonic()
        while True:
            left = _with_time_left(request, time.monotonic() - begun)
            try:
                async with aclosing(self._try(left, avoided, on_taken)) as outputs:
                    async for output in outputs:
                        if (news := told.take(output)) is not None:
                            yield news
                return
            except DivergedError as error:
                raise EngineError("the engine was lost while it ran the request") from error
            except _TryError as failed:
                logger.warning("a request has lost its engine %s: %s", failed.engine, failed.reason)
                if told.is_again:
                    raise UnavailableError(
                        "the engines that ran the request were lost; try again later",
                        reason=failed.reason,
                    ) from failed
                self._observer.record_retry(failed.reason)
                avoided = (failed.engine,) if failed.engine else ()
            told.begin_again()

    async def _try(
        self, request: Request, avoided: tuple[str, ...], on_taken: OnTaken
    ) -> AsyncGenerator[StepOutput, None]:
        """Yield what one engine makes of a request.

        Raises:
            UnavailableError: no engine has taken it.
            SkipserveError: the engine has refused it, or failed at it, and stays.
            _TryError: the engine is lost.
        """
        engine = ""
        calling = self._handle.call(self._writer.write(request), route_of(request), avoided)
        async with aclosing(calling) as frames:
            while True:
                match await self._next(frames, engine):
                    case Accepted(name):
                        engine = name
                        on_taken(name)
                    case Fault(is_lost=True, replica=name):
                        raise _TryError(Retry.REFUSED, name)
                    case Fault() as fault:
                        raise fault.error
                    case Outputs(outputs):
                        for output in outputs:
                            yield output
                        if outputs and outputs[-1].finish_reason is not None:
                            return

    async def _next(self, frames: AsyncGenerator[bytes, None], engine: str) -> FromReplica:
        """Return the next message of an engine; "" where none has taken the request yet."""
        patience = self._patience
        try:
            async with asyncio.timeout(
                patience.silence_seconds if engine else patience.placing_seconds
            ):
                return read(await anext(frames))
        except TimeoutError as error:
            if not engine:
                raise UnavailableError(
                    "no engine has taken the request; try again later"
                ) from error
            raise _TryError(Retry.SILENT, engine) from error
        except FullError as error:
            raise UnavailableError("all engines are busy; try again later") from error
        except (LostError, StopAsyncIteration, msgspec.DecodeError) as error:
            raise _TryError(Retry.LOST, engine) from error


def route_of(request: Request) -> Route:
    """Return what decides where a request goes: its pictures, or how its prompt begins."""
    assert isinstance(request.plan, Plan)
    if request.images:
        content = b"".join(image.digest for image in request.images)
    else:
        content = digest_of(*(id.to_bytes(4) for id in request.prompt_ids[:_BEGINNING_TOKENS]))
    return Route(content, request.plan.key)


def _ignore(_: str) -> None:
    return


def _with_time_left(request: Request, seconds: float) -> Request:
    """Return a request of which some of the time has passed."""
    if request.deadline_seconds is None:
        return request
    return replace(
        request, deadline_seconds=max(request.deadline_seconds - seconds, _LEAST_SECONDS)
    )
