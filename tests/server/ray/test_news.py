"""What replicas tell of themselves."""

import pytest

from skipserve.engine.reports import Ready
from skipserve.ray.news import EngineNews, NewsBoard
from skipserve.ray.remote import Crew

pytestmark = pytest.mark.fast

SMALL, LARGE = (Ready("cpu", "float32", "digest", tokens) for tokens in (100, 200))


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_nobody_is_there_at_first() -> None:
    board = NewsBoard()
    assert board.crew == Crew()
    assert (board.names, board.pages) == (set(), {})


def test_the_smallest_cache_is_that_of_all() -> None:
    board = NewsBoard()
    board.hear("one", EngineNews(LARGE, takes=True))
    board.hear("two", EngineNews(SMALL, takes=False))
    board.hear("three", EngineNews(None, takes=False))
    board.hear("ingress", None)
    assert board.crew == Crew(SMALL, takes=True)


def test_who_is_silent_is_gone_and_what_was_loaded_is_known() -> None:
    clock = Clock()
    board = NewsBoard(clock)
    board.hear("one", EngineNews(SMALL, takes=True), b"page")
    clock.now += 6
    board.hear("two", None, b"other")
    clock.now += 6
    assert board.names == {"two"}
    assert board.pages == {"two": b"other"}
    assert board.crew == Crew(SMALL, takes=False)


def test_who_leaves_is_gone_at_once() -> None:
    board = NewsBoard()
    board.hear("one", EngineNews(SMALL, takes=True))
    board.leave("one")
    board.leave("never")
    assert not board.names
    assert not board.crew.takes


def test_a_page_stays_until_another_comes() -> None:
    board = NewsBoard()
    board.hear("one", None, b"first")
    board.hear("one", None)
    assert board.pages == {"one": b"first"}
    board.hear("one", None, b"second")
    assert board.pages == {"one": b"second"}
