"""The processes that decode media, as the server sees them: few, watched, replaced."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from skipserve.errors import SkipserveError, UnavailableError, UnusableImageError
from skipserve.media.data_uri import NOUNS, EncodedImage
from skipserve.media.decode import PixelLimits
from skipserve.media.kill import Kill
from skipserve.media.messages import (
    Decode,
    Fitted,
    FromWorker,
    Grant,
    Refused,
    ToWorker,
    Want,
    WorkerSpec,
    from_worker,
    pack,
    spec_to_json,
)
from skipserve.media.places import Budget, Owner, Places
from skipserve.workers.process import WorkerGoneError, WorkerProcess

logger = logging.getLogger(__name__)

# After so many pictures a process is replaced: what libraries leak goes with it.
_PICTURES_EACH = 2000

# A picture that nobody waits for any more may end in this time; to start a process takes longer.
_LAST_SECONDS = 0.1

# More than a reply holds beside the pixels.
_REPLY_SPARE = 4096


@dataclass(frozen=True)
class PoolSpec:
    """How pictures are decoded.

    Attributes:
        worker: how each process does it.
        limits: how many pixels a request and each of its pictures may have.
        num_workers: how many processes there are at most.
        memory_bytes: what all pictures together may take that need more than a worker is granted.
    """

    worker: WorkerSpec
    limits: PixelLimits
    num_workers: int
    memory_bytes: int


class PicturePool:
    """Decodes and fits pictures, in processes that start as they are needed.

    Args:
        spec: how.
        on_kill: hears of each process that was killed or has crashed.
    """

    def __init__(self, spec: PoolSpec, on_kill: Callable[[Kill], None] = lambda _: None) -> None:
        self._spec = spec
        self._on_kill = on_kill
        self._places = Places(spec.num_workers)
        self._memory = Budget(spec.memory_bytes)
        self._idle: list[_Decoder] = []
        self._all: set[_Decoder] = set()
        self._is_closing = False

    @property
    def num_waiting(self) -> int:
        """Pictures that wait for a process."""
        return self._places.num_waiting

    @property
    def process_ids(self) -> list[int]:
        """The processes that there are, as the system knows them."""
        return [worker.process_id for worker in self._all]

    async def start(self) -> None:
        """Start the first process, so that the first picture need not wait for it."""
        self._idle.append(await self._start_worker())

    async def close(self) -> None:
        """End all processes, and with them what they decode; start no other."""
        self._is_closing = True
        self._idle.clear()
        await asyncio.gather(*map(self._end, tuple(self._all)))

    async def fit(self, images: Sequence[EncodedImage], owner: Owner) -> list[Fitted]:
        """Return the pictures of a request as the vision tower takes them, in their order.

        Cancelling it ends what is done for them.

        Args:
            images: the files; one after the other, so that a request holds one place.
            owner: who shares its turns among all of its requests.

        Raises:
            UnusableImageError: one is broken, over a limit, or takes too long.
            UnavailableError: the pool was closed.
            SkipserveError: the process that decoded one has crashed.
        """
        fitted: list[Fitted] = []
        for image in images:
            num_decoded = sum(it.num_decoded for it in fitted)
            limits = self._spec.limits
            max_pixels = min(limits.image_pixels, limits.request_pixels - num_decoded)
            async with self._places.hold(owner):
                fitted.append(await self._fit(image, max_pixels))
        return fitted

    async def _fit(self, image: EncodedImage, max_pixels: int) -> Fitted:
        worker = await self._take_worker()
        task = asyncio.ensure_future(
            self._ask(worker, Decode(image.content, max_pixels, image.frames))
        )
        try:
            reply = await asyncio.shield(task)
        except asyncio.CancelledError:
            await self._give_up(worker, task)
            raise
        except WorkerGoneError as error:
            raise await self._bury(worker, image.param) from error
        await self._keep(worker)
        if isinstance(reply, Refused):
            raise UnusableImageError(reply.message, image.param)
        return reply

    async def _ask(self, worker: "_Decoder", task: Decode) -> Fitted | Refused:
        reply = await worker.ask(task)
        if not isinstance(reply, Want):
            return self._checked(reply)
        async with self._memory.hold(reply.num_bytes):
            try:
                return self._checked(await worker.ask(Grant()))
            except BaseException:
                # Its memory is free when it is gone.
                await self._end(worker)
                raise

    def _checked(self, reply: FromWorker) -> Fitted | Refused:
        num_bytes = self._spec.worker.kind.num_bytes
        match reply:
            case Refused():
                return reply
            case Fitted(pixels) if len(pixels) == num_bytes and reply.num_decoded > 0:
                return reply
        raise WorkerGoneError("an answer that makes no sense")

    async def _give_up(self, worker: "_Decoder", task: asyncio.Task[Fitted | Refused]) -> None:
        """Let a picture that nobody waits for end if it does so at once, else its process."""
        await asyncio.wait({task}, timeout=_LAST_SECONDS)
        if task.done() and not task.cancelled() and task.exception() is None:
            await self._keep(worker)
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._end(worker)
        self._on_kill(Kill.GIVEN_UP)

    async def _bury(self, worker: "_Decoder", param: str) -> SkipserveError:
        """Return what to tell the client of a process that has ended on its own."""
        status, noun = await self._end(worker), NOUNS[self._spec.worker.kind.modality]
        if self._is_closing:
            return _closing_error()
        if status == -signal.SIGPROF:
            self._on_kill(Kill.CPU_TIME)
            return UnusableImageError(
                f"the {noun} takes more time to decode than one of its size may", param
            )
        self._on_kill(Kill.CRASHED)
        logger.error("a process that decoded an image has ended with status %d", status)
        return SkipserveError(f"the process that decoded the {noun} has crashed", param)

    async def _take_worker(self) -> "_Decoder":
        """Return a process that waits for a picture, or a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                return worker
            await self._end(worker)
        if self._is_closing:
            raise _closing_error()
        return await self._start_worker()

    async def _start_worker(self) -> "_Decoder":
        worker = _Decoder(self._spec.worker)
        self._all.add(worker)
        try:
            await worker.connect()
        except BaseException:
            await self._end(worker)
            raise
        return worker

    async def _keep(self, worker: "_Decoder") -> None:
        """Have a process ready for the next picture, unless it has done its part."""
        if worker in self._all and worker.num_pictures < _PICTURES_EACH:
            self._idle.append(worker)
        else:
            await self._end(worker)

    async def _end(self, worker: "_Decoder") -> int:
        """Kill a process unless it has ended; return its exit status when it is gone."""
        self._all.discard(worker)
        return await worker.end()


class _Decoder(WorkerProcess):
    """A process that decodes pictures.

    Attributes:
        num_pictures: how many it was given.

    Args:
        spec: how it decodes.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.num_pictures = 0
        max_reply = spec.kind.num_bytes + _REPLY_SPARE
        super().__init__(
            "skipserve.media.worker", spec_to_json(spec), max_reply, logs_json=spec.logs_json
        )

    async def ask(self, message: ToWorker) -> FromWorker:
        """Return its next word on a picture.

        Raises:
            WorkerGoneError: it has ended, or says what is no message.
        """
        self.num_pictures += isinstance(message, Decode)
        try:
            return from_worker(await self.exchange(pack(message)))
        except msgspec.DecodeError as error:
            raise WorkerGoneError from error


def _closing_error() -> UnavailableError:
    return UnavailableError("the server is shutting down")
