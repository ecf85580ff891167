"""Shapes to grammars, as the server has it done: in processes that are watched and replaced."""

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from skipserve.errors import InvalidRequestError, SkipserveError, UnavailableError
from skipserve.grammar.cache import LatestCache
from skipserve.grammar.messages import (
    Compile,
    Compiled,
    CompilerSpec,
    Refused,
    Reply,
    from_compiler,
    pack,
    spec_to_json,
)
from skipserve.grammar.outcome import GrammarOutcome
from skipserve.grammar.structure import MAX_BYTES, Shape, Structure
from skipserve.media.places import Owner, Places
from skipserve.workers.process import WorkerGoneError, WorkerProcess

logger = logging.getLogger(__name__)

# How a process ends that takes too much time, memory or stack.
_BY_GRAMMARS = {-signal.SIGPROF, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}
# More than any grammar has that is made of a shape within the limits.
_MAX_REPLY = 8 * MAX_BYTES
# After so many grammars a process is replaced: what libraries leak goes with it.
_GRAMMARS_EACH = 2000
_TOO_MUCH = "it takes more time or memory to compile than it may; make it simpler"


@dataclass(frozen=True)
class CompilersSpec:
    """How grammars are compiled.

    Attributes:
        worker: how each process does it.
        num_workers: how many processes there are at most.
        max_kept: grammars that are kept, those that were refused among them.
        max_kept_bytes: what they may take.
    """

    worker: CompilerSpec
    num_workers: int
    max_kept: int
    max_kept_bytes: int


class GrammarCompiler:
    """Compiles shapes, in processes that start as they are needed, and keeps what it gets.

    What was refused, or killed, is kept as well: to send it again costs nothing.

    Args:
        spec: how.
        on_outcome: hears of each shape.
    """

    def __init__(
        self, spec: CompilersSpec, on_outcome: Callable[[GrammarOutcome], None] = lambda _: None
    ) -> None:
        self._spec = spec
        self._on_outcome = on_outcome
        self._places = Places(spec.num_workers)
        self._kept: LatestCache[Shape, Reply] = LatestCache(spec.max_kept, spec.max_kept_bytes)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._is_closing = False

    @property
    def process_ids(self) -> list[int]:
        """The processes that there are, as the system knows them."""
        return [process.process_id for process in self._all]

    async def close(self) -> None:
        """End all processes, and with them what they compile; start no other."""
        self._is_closing = True
        self._idle.clear()
        await asyncio.gather(*map(self._end, tuple(self._all)))

    async def compile(self, structure: Structure, owner: Owner) -> str:
        """Return the grammar of what an answer is held to. Cancelling it ends what is done for it.

        Args:
            structure: what that is; within its limits.
            owner: who shares its turns among all of its requests.

        Raises:
            InvalidRequestError: there is none, or none within the limits of time and memory.
            UnavailableError: it was closed.
        """
        reply, outcome = self._kept.get(structure.shape), GrammarOutcome.CACHED
        if reply is None:
            async with self._places.hold(owner):
                reply, outcome = await self._try(structure.shape)
            self._kept.put(
                structure.shape, reply, len(pack(Compile(structure.shape))) + _size(reply)
            )
        self._on_outcome(outcome)
        if isinstance(reply, Refused):
            param = reply.param or structure.param
            raise InvalidRequestError(f"{param} cannot be followed: {reply.message}", param)
        return reply.grammar

    async def _try(self, shape: Shape) -> tuple[Reply, GrammarOutcome]:
        process = await self._take()
        try:
            reply = await process.compile(shape)
        except WorkerGoneError as error:
            return await self._bury(process, error)
        except BaseException:
            await self._end(process)
            raise
        await self._keep(process)
        is_refused = isinstance(reply, Refused)
        return reply, GrammarOutcome.REFUSED if is_refused else GrammarOutcome.COMPILED

    async def _bury(
        self, process: "_Process", error: WorkerGoneError
    ) -> tuple[Reply, GrammarOutcome]:
        """Say what to tell of a process that its grammar has ended: that was too much.

        Raises:
            SkipserveError: it was none of the grammar's doing, and so is not to be remembered.
        """
        status = await self._end(process)
        if self._is_closing:
            raise _closing_error() from error
        # One that never came so far may have failed at the model's files.
        if status not in _BY_GRAMMARS and not (process.has_answered and status > 0):
            logger.error("a process that compiles grammars has ended with status %d", status)
            raise SkipserveError("the process that compiles grammars has crashed") from error
        logger.warning("a process was ended by the grammar that it compiled, status %d", status)
        return Refused(_TOO_MUCH), GrammarOutcome.KILLED

    async def _take(self) -> "_Process":
        """Return a process that waits for a shape, or a new one."""
        while self._idle:
            process = self._idle.pop()
            if process.is_alive:
                return process
            await self._end(process)
        if self._is_closing:
            raise _closing_error()
        process = _Process(self._spec.worker)
        self._all.add(process)
        try:
            await process.connect()
        except BaseException:
            await self._end(process)
            raise
        return process

    async def _keep(self, process: "_Process") -> None:
        if process in self._all and process.num_shapes < _GRAMMARS_EACH:
            self._idle.append(process)
        else:
            await self._end(process)

    async def _end(self, process: "_Process") -> int:
        """Kill a process unless it has ended; return its exit status when it is gone."""
        self._all.discard(process)
        return await process.end()


class _Process(WorkerProcess):
    """A process that compiles grammars.

    Attributes:
        num_shapes: how many it was given.
        has_answered: whether it has compiled any.

    Args:
        spec: how.
    """

    def __init__(self, spec: CompilerSpec) -> None:
        self.num_shapes = 0
        self.has_answered = False
        super().__init__(
            "skipserve.grammar.worker", spec_to_json(spec), _MAX_REPLY, logs_json=spec.logs_json
        )

    async def compile(self, shape: Shape) -> Reply:
        """Return the grammar of a shape, or why there is none.

        Raises:
            WorkerGoneError: it has ended, or says what is no message.
        """
        self.num_shapes += 1
        try:
            reply = from_compiler(await self.exchange(pack(Compile(shape))))
        except msgspec.DecodeError as error:
            raise WorkerGoneError from error
        self.has_answered = True
        return reply


def _size(reply: Reply) -> int:
    return len(reply.grammar if isinstance(reply, Compiled) else reply.message)


def _closing_error() -> UnavailableError:
    return UnavailableError("the server is shutting down")
