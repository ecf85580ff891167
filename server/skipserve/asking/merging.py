"""Several sources of pieces as one, in the order in which the pieces come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def merged(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """Yield what the sources yield, until all are at their ends; closing it closes them.

    Raises:
        Exception: what a source raises, after which the others are closed.
    """
    arrived: asyncio.Queue[tuple[T, ...] | Exception] = asyncio.Queue()
    readers = [asyncio.create_task(_read(source, arrived)) for source in sources]
    try:
        num_open = len(readers)
        while num_open:
            found = await arrived.get()
            if isinstance(found, Exception):
                raise found
            num_open -= not found
            for item in found:
                yield item
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _read(
    source: AsyncGenerator[T, None], arrived: asyncio.Queue[tuple[T, ...] | Exception]
) -> None:
    """Put each item of a source into the queue, then an empty tuple, or what it raised."""
    try:
        async with aclosing(source):
            async for item in source:
                arrived.put_nowait((item,))
    except Exception as error:  # noqa: BLE001 (whoever waits raises it)
        arrived.put_nowait(error)
    else:
        arrived.put_nowait(())
