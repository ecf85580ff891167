"""Tests of several streams as one."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from skipserve.api.merging import merge
from skipserve.asking.answer import Piece
from skipserve.errors import EngineError

pytestmark = pytest.mark.fast


class Source:
    """Yields some texts, each after some turns of the loop; then ends, or fails."""

    def __init__(self, texts: str, turns: int = 1, error: Exception | None = None) -> None:
        self.is_closed = False
        self._texts, self._turns, self._error = texts, turns, error

    async def run(self) -> AsyncGenerator[Piece, None]:
        try:
            for text in self._texts:
                for _ in range(self._turns):
                    await asyncio.sleep(0)
                yield Piece(text, (), None)
            if self._error is not None:
                raise self._error
        finally:
            self.is_closed = True


def collect(*sources: Source, stop_after: int | None = None) -> list[tuple[int, str]]:
    """Return the pieces that come, each with its index; the client may leave before the end."""
    found: list[tuple[int, str]] = []

    async def run() -> None:
        merged = merge([source.run() for source in sources])
        try:
            async for piece in merged:
                found.append((piece.index, piece.text))
                if len(found) == stop_after:
                    break
        finally:
            await merged.aclose()

    asyncio.run(run())
    return found


def test_all_pieces_come_each_stream_in_its_order() -> None:
    found = collect(Source("abc"), Source("xy", turns=3), Source(""))
    assert "".join(text for index, text in found if index == 0) == "abc"
    assert "".join(text for index, text in found if index == 1) == "xy"
    assert len(found) == 5


def test_a_stream_that_is_always_ready_holds_no_other_up() -> None:
    found = collect(Source("a" * 50, turns=0), Source("b" * 3, turns=0))
    assert [index for index, _ in found[:6]] == [0, 1, 0, 1, 0, 1]


def test_an_error_of_one_closes_all() -> None:
    good, bad = Source("a" * 50), Source("b", error=EngineError("it failed"))
    with pytest.raises(EngineError):
        collect(good, bad)
    assert good.is_closed
    assert bad.is_closed


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_leaving_closes_all(stop_after: int) -> None:
    sources = [Source("abc", turns=turns) for turns in (0, 1, 7)]
    assert len(collect(*sources, stop_after=stop_after)) == stop_after
    assert all(source.is_closed for source in sources)
