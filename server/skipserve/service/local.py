"""The engine as the API process sees it: starts its process, streams, watches. Imports no torch."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVarTuple, Unpack

from skipserve.engine.limits import EngineSpec
from skipserve.engine.reports import EngineState, Failed, FailureKind, Ready, StepOutput
from skipserve.engine.request import Request
from skipserve.errors import (
    EngineError,
    InvalidRequestError,
    RequestTimeoutError,
    SkipserveError,
    UnavailableError,
)
from skipserve.logging_setup import relay_lines
from skipserve.service.ipc import FrameError, pack, read_from_engine, spec_to_json
from skipserve.service.messages import Cancel, FromEngine, PlanWanted, Progress, Submit
from skipserve.service.observer import Observer
from skipserve.service.service import OnTaken
from skipserve_policies.plan import Plan

logger = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

_ERRORS: dict[FailureKind, type[SkipserveError]] = {
    FailureKind.ENGINE: EngineError,
    FailureKind.INVALID: InvalidRequestError,
    FailureKind.QUEUE_TIMEOUT: RequestTimeoutError,
    FailureKind.DEADLINE: RequestTimeoutError,
    FailureKind.OUT_OF_MEMORY: UnavailableError,
}
_ADVICE = {
    FailureKind.QUEUE_TIMEOUT: "; the server is busy, try again later",
    FailureKind.DEADLINE: "; ask for fewer tokens, or for more time with timeout_seconds",
    FailureKind.OUT_OF_MEMORY: "; try again later, or with fewer images or a shorter prompt",
}

# What is said of requests that a server has no time for any more.
_CUT_OFF = "the server is shutting down, and the request was not done in time; try again later"

# An engine that has let go of its socket gets so long to end, for its status says why.
_EXIT_SECONDS = 5.0

# So many times `stall_seconds` without a sign of life, and the engine is killed.
_SILENT_PERIODS = 4


# Keys of plans that are remembered as sent; to forget one costs sending its table again.
_MAX_SENT = 4096


@dataclass
class _Stream:
    """What the engine says about one request, for the one who waits for it.

    Attributes:
        request: what was asked.
        is_cancelled: whether nobody waits any more.
        events: what has not been read yet.
    """

    request: Request
    is_cancelled: bool = False
    events: asyncio.Queue[StepOutput | SkipserveError] = field(default_factory=asyncio.Queue)


class EngineService:
    """An engine in a process of its own.

    Attributes:
        ready: what was loaded; None until then.
        failure: why the engine is gone, unless it was closed; None while it lives.
        pid: of the engine's process; None until `start`.

    Args:
        spec: how to run the engine.
        observer: hears what the engine does.
    """

    def __init__(self, spec: EngineSpec, observer: Observer | None = None) -> None:
        self.ready: Ready | None = None
        self.failure: EngineError | None = None
        self.pid: int | None = None
        self._spec = spec
        self._observer = observer or Observer()
        # What it has failed at.
        self._unheard: set[tuple[str, type[Exception]]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._follower: asyncio.Task[None] | None = None
        self._relay: threading.Thread | None = None
        self._is_connected = False
        self._is_closing = False
        self._signed_at = time.monotonic()
        self._state = EngineState()
        # Requests that the engine has not ended yet, those that nobody reads any more among them.
        self._streams: dict[str, _Stream] = {}
        # Keys of plans whose tables the engine was sent. It may have forgotten some, and says so.
        self._sent: set[bytes] = set()
        self._loaded, self._idle, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._observer.watch_engine(
            lambda: self.is_ready,
            lambda: self.num_running,
            lambda: self.num_waiting,
            lambda: self.pid if self._is_connected else None,
        )

    @property
    def is_alive(self) -> bool:
        """Whether the process lives and, once it is loaded, has lately shown progress."""
        if not self._is_connected:
            return False
        stalled_seconds = time.monotonic() - self._signed_at
        return self.ready is None or stalled_seconds < self._spec.stall_seconds

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests."""
        return self.why_not_ready is None

    @property
    def why_not_ready(self) -> str | None:
        """Why it takes no requests, in words for anyone; None while it takes them."""
        if self._is_closing:
            return "the server is shutting down"
        if not self._is_connected:
            return "the engine is not running"
        if self.ready is None:
            return "the model is still loading"
        return None if self.is_alive else "the engine makes no progress"

    @property
    def num_running(self) -> int:
        """Requests under way, as the engine last said."""
        return self._state.num_running

    @property
    def num_waiting(self) -> int:
        """Requests that were handed over and do not run, those among them it has not heard of."""
        return max(len(self._streams) - self.num_running, 0)

    async def start(self) -> None:
        """Start the process and return at once; `ready` says when the model is loaded."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = _start_process(self._spec, theirs)
        if process.stdout is not None:
            self._relay = threading.Thread(target=relay_lines, args=(process.stdout,), daemon=True)
            self._relay.start()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self.pid = process.pid
        self._is_connected = True
        self._follower = asyncio.create_task(self._follow(process, reader))

    async def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        """Run a request and yield what each step gives it; closing the generator cancels it.

        Args:
            request: what is asked.
            on_taken: hears when it has been handed over.

        Raises:
            UnavailableError: the engine takes no requests now, or has no memory for this one.
            InvalidRequestError: the request is too large to hand over, or the engine refused it.
            RequestTimeoutError: it waited, or ran, longer than it may.
            EngineError: the engine failed at the request or died.
        """
        assert request.id not in self._streams
        writer = self._open_writer()
        frame = self._first_frame(request)
        stream = self._streams[request.id] = _Stream(request)
        self._idle.clear()
        try:
            writer.write(frame)
            # Where the connection breaks, the reason comes as an event.
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            if on_taken is not None:
                on_taken("")
            output = None
            while output is None or output.finish_reason is None:
                output = _unless_error(await stream.events.get())
                yield output
        finally:
            if request.id in self._streams:
                stream.is_cancelled = True
                writer.write(pack(Cancel(request.id)))

    async def wait_ready(self) -> None:
        """Return when the model is loaded.

        Raises:
            EngineError: the engine is gone before that.
        """
        await self._loaded.wait()
        if self.ready is None:
            raise EngineError(self.failure.message if self.failure else "the engine was closed")

    async def wait_closed(self) -> None:
        """Return when the process is gone."""
        await self._gone.wait()

    async def close(self, grace_seconds: float) -> None:
        """Refuse new requests, let those under way finish within the grace, end the process."""
        self._is_closing = True
        if self._writer is None or self._follower is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._idle.wait()
        self._writer.close()
        await self._follower

    def _open_writer(self) -> asyncio.StreamWriter:
        if self._is_closing:
            raise UnavailableError("the server is shutting down")
        if self.failure is not None:
            raise EngineError(self.failure.message, reason=FailureKind.ENGINE)
        if self.ready is None or self._writer is None:
            raise UnavailableError("the model is still loading")
        return self._writer

    def _first_frame(self, request: Request) -> bytes:
        """Return a request as it is sent first: with its plan's key where the table was sent."""
        # A request that names a key could not be sent again with the table.
        assert isinstance(request.plan, Plan)
        key = request.plan.key
        if key in self._sent:
            return _pack_request(replace(request, plan=key))
        frame = _pack_request(request)
        if len(self._sent) >= _MAX_SENT:
            self._sent.clear()
        self._sent.add(key)
        return frame

    def _submit_again(self, request_id: str) -> None:
        """Send a request with its plan's table, which the engine does not know any more."""
        stream = self._streams[request_id]
        if stream.is_cancelled or self._writer is None:
            self._forget(request_id)
        else:
            self._writer.write(_pack_request(stream.request))

    async def _follow(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader) -> None:
        """Act on what the engine says until it is gone, then clear up after it."""
        watchdog = asyncio.create_task(self._watch(process))
        try:
            while (message := await read_from_engine(reader)) is not None:
                self._signed_at = time.monotonic()
                self._handle(message)
        except FrameError:
            self.failure = EngineError("the engine sent something that is not a message")
            logger.exception(self.failure.message)
        finally:
            watchdog.cancel()
            self._is_connected = False
            await self._clear_up(process)

    async def _clear_up(self, process: subprocess.Popen[bytes]) -> None:
        """End the streams at once, then the process; say how that died unless it is known why."""
        has_died = self.failure is None and not self._is_closing
        if has_died:
            self.failure = EngineError("the engine has died")
        self._fail_all()
        if has_died:
            ending = await asyncio.to_thread(_ending, process)
            self.failure = EngineError(f"the engine has died: {ending}")
            logger.error(self.failure.message)
        process.kill()
        await asyncio.to_thread(process.wait)
        if self._relay is not None:
            await asyncio.to_thread(self._relay.join, _EXIT_SECONDS)
        self._loaded.set()
        self._gone.set()

    def _handle(self, message: FromEngine) -> None:
        match message:
            case Ready():
                self.ready = message
                self._tell(self._observer.record_ready, message)
                self._loaded.set()
            case Progress():
                self._take_progress(message)
            case PlanWanted(request_id):
                self._submit_again(request_id)
            case Failed(request_id=None):
                self.failure = EngineError(message.message)
            case Failed(request_id=str(request_id)):
                self._end(request_id, message.kind, _to_error(message))

    def _tell(self, hear: Callable[[Unpack[Ts]], None], *news: *Ts) -> None:
        """Let the observer hear; what it fails at is logged, once, and ends nothing."""
        try:
            hear(*news)
        except Exception as error:
            fault = hear.__name__, type(error)
            if fault not in self._unheard:
                self._unheard.add(fault)
                logger.exception("what the engine tells could not be taken note of")

    def _take_progress(self, progress: Progress) -> None:
        self._state = progress.state
        for output in progress.outputs:
            self._pass_on(output)
        self._tell(self._observer.record_state, progress.state)
        if progress.step is not None:
            self._tell(self._observer.record_step, progress.step)

    def _pass_on(self, output: StepOutput) -> None:
        stream = self._streams[output.request_id]
        stream.events.put_nowait(output)
        self._tell(self._observer.record_output, stream.request.policy_name, output)
        if output.finish_reason is not None:
            self._forget(output.request_id)

    def _end(self, request_id: str, kind: FailureKind, error: SkipserveError) -> None:
        self._streams[request_id].events.put_nowait(error)
        self._tell(self._observer.record_failure, kind)
        self._forget(request_id)

    def _fail_all(self) -> None:
        """End all streams, for the engine is gone, or about to be."""
        for request_id, stream in tuple(self._streams.items()):
            if self._is_closing and self.failure is None:
                stream.events.put_nowait(UnavailableError(_CUT_OFF))
                self._forget(request_id)
            else:
                error = EngineError(
                    "the engine stopped while it ran the request", reason=FailureKind.ENGINE
                )
                self._end(request_id, FailureKind.ENGINE, error)
        self._state = EngineState()

    def _forget(self, request_id: str) -> None:
        del self._streams[request_id]
        if not self._streams:
            self._idle.set()

    async def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Kill an engine that does not finish loading, or that hangs beyond doubt.

        `is_alive` is False after one silent period, and True again if a step was only slow, as the
        prompt of a large model is on a CPU. After several the engine dies, and with it the streams.
        """
        try:
            async with asyncio.timeout(self._spec.load_seconds):
                await self._loaded.wait()
            await self._wait_for_silence(_SILENT_PERIODS)
            self.failure = EngineError("the engine made no progress and was killed")
        except TimeoutError:
            self.failure = EngineError(
                f"the model did not load within {self._spec.load_seconds} seconds"
            )
        logger.error(self.failure.message)
        process.kill()

    async def _wait_for_silence(self, num_periods: int) -> None:
        """Return after so many periods of `stall_seconds` on end without a sign of life."""
        num_silent = 0
        while num_silent < num_periods:
            last_sign = self._signed_at
            await asyncio.sleep(self._spec.stall_seconds)
            num_silent = num_silent + 1 if self._signed_at == last_sign else 0


def _start_process(spec: EngineSpec, connection: socket.socket) -> subprocess.Popen[bytes]:
    """Start an engine that holds one end of a socket, which no other process can find."""
    environment = dict(os.environ)
    if spec.num_threads is not None:
        environment["OMP_NUM_THREADS"] = str(spec.num_threads)
    # Not asyncio's: its child watcher and its kill() compete for the exit status.
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "skipserve.service.process"),
            *(str(connection.fileno()), spec_to_json(spec)),
        ],
        stdin=subprocess.DEVNULL,
        # Libraries print there, in C too: what is not JSON is made JSON on this side.
        stdout=subprocess.PIPE if spec.logs_json else None,
        stderr=subprocess.STDOUT if spec.logs_json else None,
        env=environment,
        pass_fds=(connection.fileno(),),
        # A Ctrl-C at the terminal is for the parent, which then decides.
        start_new_session=True,
    )


def _ending(process: subprocess.Popen[bytes]) -> str:
    """Say how a process ends that has let go of its socket."""
    try:
        status = process.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        return "it hung on its way out"
    if status >= 0:
        return f"exit code {status}"
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-status, f"signal {-status}")


def _pack_request(request: Request) -> bytes:
    try:
        return pack(Submit(request))
    except FrameError as error:
        raise InvalidRequestError("the request is too large") from error


def _to_error(failed: Failed) -> SkipserveError:
    message = failed.message + _ADVICE.get(failed.kind, "")
    return _ERRORS[failed.kind](message, failed.param, reason=failed.kind)


def _unless_error(event: StepOutput | SkipserveError) -> StepOutput:
    if isinstance(event, SkipserveError):
        raise event
    return event
