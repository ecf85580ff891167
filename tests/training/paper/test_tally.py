"""Right answers counted by type of question."""

import pytest

from skipserve_training.mapping.lessons import Probe
from skipserve_training.paper.answering import Verdict
from skipserve_training.paper.asking import Asked
from skipserve_training.paper.records import ALL, Count
from skipserve_training.paper.tally import tally

pytestmark = pytest.mark.fast

RIGHT, WRONG = Verdict(True, True, True), Verdict(False, False, False)
KINDS = ("colour", "shape", "yes/no, present", "yes/no, absent")


def _asked(text: str, answer: str, kind: str) -> Asked:
    return Asked(Probe(text, (answer,), kind), 0)


def test_answers_are_counted_by_type() -> None:
    asked = [
        _asked("what color is the shape?", "red", "colour"),
        _asked("is there a blue shape?", "no", "yes/no, absent"),
        _asked("is there a red shape?", "yes", "yes/no, present"),
    ]
    verdicts = [RIGHT, Verdict(False, True, True), WRONG]
    counts = tally(asked, verdicts, [0, 1, 0], KINDS)
    assert counts["colour"] == Count(1, 1, 1, 1, 0)
    assert counts["yes/no, absent"] == Count(1, 0, 1, 1, 1)
    assert counts["yes/no, present"] == Count(1, 0, 0, 0, 0)
    assert counts[ALL] == Count(3, 1, 2, 2, 1)
    assert [*counts] == ["colour", "yes/no, present", "yes/no, absent", ALL]


def test_answers_that_are_right_in_part_add_up() -> None:
    asked = [_asked(str(number), "red", "colour") for number in range(10)]
    verdicts = [Verdict(False, 0.3, False)] * 10
    assert tally(asked, verdicts, [0.6] * 10, KINDS)[ALL] == Count(10, 0, 3.0, 0, 6.0)
