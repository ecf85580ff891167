"""Several streams as one, each piece as soon as it is there."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from skipserve.asking.answer import Piece


async def merge(streams: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of all streams, each with its stream's index; closing it closes them.

    Raises:
        SkipserveError: the first that a stream raises; the others are then closed.
    """
    ahead = {_next(stream): index for index, stream in enumerate(streams)}
    try:
        while ahead:
            done, _ = await asyncio.wait(ahead, return_when=asyncio.FIRST_COMPLETED)
            # Whichever has waited longest, so that none that is always ready holds the others up.
            task = next(task for task in ahead if task in done)
            index = ahead.pop(task)
            if (piece := task.result()) is not None:
                ahead[_next(streams[index])] = index
                yield replace(piece, index=index)
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


def _next(stream: AsyncGenerator[Piece, None]) -> asyncio.Task[Piece | None]:
    async def take() -> Piece | None:
        return await anext(stream, None)

    return asyncio.create_task(take())
