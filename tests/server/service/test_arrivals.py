"""Tests of messages that wait until grammars are compiled."""

import queue
import threading
from collections.abc import Iterator

import pytest
from fake_decoder import make_request
from grammar_parts import vocabulary_of

from skipserve.engine.request import Adjustments, Grammar
from skipserve.grammar.matcher import Grammars
from skipserve.grammar.structure import Choice
from skipserve.grammar.vocabulary import Vocabulary
from skipserve.grammar.writing import written
from skipserve.service.arrivals import Arrivals
from skipserve.service.messages import Cancel, Submit, ToEngine

pytestmark = pytest.mark.fast

PLAIN = Submit(make_request("plain"))
TEXT = written(Choice(("a",)))
LONG = 60.0


def held(name: str, text: str = TEXT) -> Submit:
    adjustments = Adjustments(grammar=Grammar(text, "field"))
    return Submit(make_request(name, adjustments=adjustments))


class Slow:
    """A vocabulary that is read only when it may be."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.inbox: queue.Queue[ToEngine] = queue.Queue()
        self.arrivals = Arrivals(Grammars(self._load), self.inbox.put)

    def _load(self) -> Vocabulary:
        assert self.may_go.wait(LONG)
        return vocabulary_of()[1]

    def next(self) -> ToEngine:
        return self.inbox.get(timeout=LONG)


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.may_go.set()


def test_others_pass_a_request_whose_grammar_is_compiled(slow: Slow) -> None:
    slow.arrivals.take(held("one"))
    slow.arrivals.take(PLAIN)
    assert slow.next() == PLAIN
    assert slow.inbox.empty()
    slow.may_go.set()
    assert slow.next() == held("one")
    # It is there now, and need not wait.
    slow.arrivals.take(held("two"))
    assert slow.inbox.get_nowait() == held("two")


def test_a_request_that_is_given_up_meanwhile_comes_with_its_end(slow: Slow) -> None:
    slow.arrivals.take(held("one"))
    slow.arrivals.take(Cancel("one"))
    slow.arrivals.take(Cancel("other"))
    assert slow.next() == Cancel("other")
    slow.may_go.set()
    assert [slow.next(), slow.next()] == [held("one"), Cancel("one")]


def test_what_cannot_be_compiled_is_passed_on(slow: Slow) -> None:
    slow.may_go.set()
    slow.arrivals.take(held("one", "start: ("))
    assert slow.next() == held("one", "start: (")


def test_without_grammars_nothing_waits() -> None:
    inbox: queue.Queue[ToEngine] = queue.Queue()
    Arrivals(None, inbox.put).take(held("one"))
    assert inbox.get_nowait() == held("one")
