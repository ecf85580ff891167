"""Tests of several sources as one."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from skipserve.asking.merging import merged

pytestmark = pytest.mark.fast


class Source:
    """Yields what it is told to, and remembers whether it was closed."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.is_closed = False

    async def run(self) -> AsyncGenerator[int, None]:
        try:
            while (item := await self.items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.is_closed = True


def play(scenario: Callable[[list[Source]], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await scenario([Source(), Source(), Source()])

    asyncio.run(run())


def test_items_come_in_the_order_of_their_arrival() -> None:
    async def scenario(sources: list[Source]) -> None:
        pieces = merged([source.run() for source in sources])
        for place, item in ((1, 5), (0, 6), (2, 7), (1, 8)):
            sources[place].items.put_nowait(item)
            assert await anext(pieces) == item
        sources[1].items.put_nowait(None)
        sources[0].items.put_nowait(9)
        assert await anext(pieces) == 9
        for source in sources[0], sources[2]:
            source.items.put_nowait(None)
        assert [piece async for piece in pieces] == []
        assert all(source.is_closed for source in sources)

    play(scenario)


def test_an_error_ends_all() -> None:
    async def scenario(sources: list[Source]) -> None:
        pieces = merged([source.run() for source in sources])
        sources[0].items.put_nowait(1)
        assert await anext(pieces) == 1
        sources[2].items.put_nowait(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await anext(pieces)
        assert all(source.is_closed for source in sources)

    play(scenario)


def test_closing_it_closes_all() -> None:
    async def scenario(sources: list[Source]) -> None:
        pieces = merged([source.run() for source in sources])
        sources[0].items.put_nowait(1)
        assert await anext(pieces) == 1
        await pieces.aclose()
        assert all(source.is_closed for source in sources)

    play(scenario)


def test_a_reader_that_is_cancelled_closes_all() -> None:
    async def scenario(sources: list[Source]) -> None:
        async def read() -> None:
            async for _ in merged([source.run() for source in sources]):
                pass

        task = asyncio.create_task(read())
        sources[0].items.put_nowait(1)
        while not sources[0].items.empty():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(source.is_closed for source in sources)

    play(scenario)
