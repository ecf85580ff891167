"""A replica's side of the wire: runs requests on its engine, and ends with it. No Ray."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from skipserve.engine.reports import StepOutput
from skipserve.errors import SkipserveError
from skipserve.ray.wire import Accepted, CallReader, Fault, Outputs, pack
from skipserve.service.service import Service

logger = logging.getLogger(__name__)
_SIGN_SECONDS = 2.0


class Answering:
    """Runs requests on an engine for whoever calls.

    Args:
        service: the engine.
        name: of the replica.
        sign_seconds: after so long without an output a call is sent a sign of life.
    """

    def __init__(self, service: Service, name: str, sign_seconds: float = _SIGN_SECONDS) -> None:
        self._service = service
        self._name = name
        self._sign_seconds = sign_seconds
        self._reader = CallReader()

    async def answer(self, frame: bytes) -> AsyncGenerator[bytes, None]:
        """Run the request of a call and yield messages; closing the generator cancels it.

        Raises:
            msgspec.DecodeError: it is no call.
        """
        request = self._reader.read(frame)
        if (why := self._service.why_not_ready) is not None:
            yield pack(Fault(self._name, "UnavailableError", why, is_lost=True))
            return
        yield pack(Accepted(self._name))
        try:
            batches = batched(self._service.stream(request), self._sign_seconds)
            async with aclosing(batches):
                async for batch in batches:
                    yield pack(Outputs(batch))
        except SkipserveError as error:
            is_lost = self._service.why_not_ready is not None
            yield pack(Fault.of(self._name, error, is_lost))


async def end_with(service: Service, leave: Callable[[int], object]) -> None:
    """Wait until an engine is gone; leave at once where it has died.

    A replica that stayed would draw requests that it can only refuse.
    """
    await service.wait_closed()
    if service.failure is not None:
        logger.error("the replica ends: %s", service.failure.message)
        leave(1)


async def batched(
    source: AsyncGenerator[StepOutput, None], sign_seconds: float
) -> AsyncGenerator[tuple[StepOutput, ...], None]:
    """Yield what a source yields, all that is there at a time; closing it closes the source.

    Where nothing comes for `sign_seconds`, it yields nothing, and waits again.

    Raises:
        Exception: what the source raises.
    """
    arrived: asyncio.Queue[StepOutput | Exception | None] = asyncio.Queue()
    reader = asyncio.create_task(_read(source, arrived))
    try:
        while True:
            batch = await _take(arrived, sign_seconds)
            outputs = tuple(it for it in batch if isinstance(it, StepOutput))
            if outputs or not batch:
                yield outputs
            if batch and isinstance(batch[-1], Exception):
                raise batch[-1]
            if batch and batch[-1] is None:
                return
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _read(
    source: AsyncGenerator[StepOutput, None],
    arrived: asyncio.Queue[StepOutput | Exception | None],
) -> None:
    """Put each output of a source into the queue, then None, or what it raised."""
    try:
        async with aclosing(source):
            async for output in source:
                arrived.put_nowait(output)
    except Exception as error:  # noqa: BLE001 (whoever waits raises it)
        arrived.put_nowait(error)
    else:
        arrived.put_nowait(None)


async def _take(
    arrived: asyncio.Queue[StepOutput | Exception | None], seconds: float
) -> list[StepOutput | Exception | None]:
    """Return all that is there, waiting for a first; nothing where none comes in time."""
    try:
        async with asyncio.timeout(seconds):
            taken = [await arrived.get()]
    except TimeoutError:
        return []
    while not arrived.empty():
        taken.append(arrived.get_nowait())
    return taken
