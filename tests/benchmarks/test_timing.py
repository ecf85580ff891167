"""Sets of questions are timed for each contender in turn."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from timing import (
    Answer,
    OnToken,
    Timing,
    agreement,
    median_in_turns,
    median_of,
    take_turns,
    time_set,
)

pytestmark = pytest.mark.fast


class Question:
    num_new_tokens = 2


class Echo:
    """Answers 7 to everything, and uses a second of processor time for each question."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.seconds = 0.0

    def answer(self, questions: Sequence[Any], on_token: OnToken) -> None:
        self.log.append((self, questions))
        for _ in range(Question.num_new_tokens):
            for index in range(len(questions)):
                on_token(index, 7)
        self.seconds += len(questions)

    def cpu_seconds(self) -> float:
        return self.seconds


def timing(*answers: tuple[int, ...]) -> Timing:
    return Timing(1.0, 1.0, tuple(Answer(ids, (0.0,) * len(ids)) for ids in answers))


def test_a_set_has_an_answer_to_each_question() -> None:
    questions: list[Any] = [Question(), Question()]
    timed = time_set(Echo([]), questions)
    assert [answer.token_ids for answer in timed.answers] == [(7, 7), (7, 7)]
    assert timed.cpu_seconds == 2.0
    assert all(0 < a.times[0] <= a.times[1] <= timed.seconds for a in timed.answers)


def test_latencies_are_means_over_the_questions() -> None:
    answers = (Answer((1, 2, 3), (1.0, 2.0, 4.0)), Answer((1, 2), (3.0, 3.5)))
    timed = Timing(4.0, 4.0, answers)
    assert timed.first_token_seconds == 2.0
    assert timed.per_token_seconds == 1.0


def test_contenders_take_turns_on_the_same_new_questions() -> None:
    log: list[Any] = []
    first, second = Echo(log), Echo(log)
    sets: list[list[Any]] = [[Question()] for _ in range(3)]
    draws = iter(sets)
    timings = take_turns({"first": first, "second": second}, lambda: next(draws), 2, "title")
    assert [who for who, _ in log] == [first, second] * 3
    assert [questions for _, questions in log] == [each for each in sets for _ in range(2)]
    assert [len(found) for found in timings.values()] == [2, 2]  # the first turn is not counted


def test_medians_are_of_measures_that_take_turns() -> None:
    log: list[str] = []
    figures = iter([9.0, 90.0, 1.0, 10.0, 3.0, 30.0, 2.0, 20.0])

    def measure(name: str) -> float:
        log.append(name)
        return next(figures)

    measures = {name: partial(measure, name) for name in ("first", "second")}
    assert median_in_turns(measures, 3) == {"first": 2.0, "second": 20.0}
    assert log == ["first", "second"] * 4


def test_a_median_is_of_one_field() -> None:
    timings = [Timing(seconds, 9.0, ()) for seconds in (3.0, 1.0, 2.0)]
    assert median_of(timings, "seconds") == 2.0


def test_answers_agree_up_to_the_first_difference() -> None:
    ours = [timing((1, 2, 3, 4), (5, 6)), timing((1,), (2,))]
    theirs = [timing((1, 2, 9, 4), (5, 6)), timing((1,), (3,))]
    assert agreement(ours, theirs) == (0.5 + 1 + 1 + 0) / 4
