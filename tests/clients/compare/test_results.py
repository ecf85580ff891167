"""Where answers part, and what is shown of it."""

import io
from typing import Any

import pytest
from rich.console import Console

from skipserve_client.compare.asking import Answers, TimedAnswer
from skipserve_client.compare.results import (
    Difference,
    as_json,
    difference,
    results_of,
    results_shown,
)
from skipserve_client.replies import Answer

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("baseline", "here", "found"),
    [
        ("a red star", "a red star", None),
        ("", "", None),
        ("a red star", "a blue star", Difference(2, "red", "blue")),
        ("a red star", "a red", Difference(3, "star", "")),
        ("a red", "a red star", Difference(3, "", "star")),
        ("", "a", Difference(1, "", "a")),
        ("a red", "a  red", Difference(None)),
    ],
)
def test_the_first_word_that_differs(baseline: str, here: str, found: Difference | None) -> None:
    assert difference(baseline, here) == found


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Difference(2, "red", "blue"), "word 2: 'blue', where full has 'red'"),
        (Difference(3, "star", ""), "word 3: the end, where full has 'star'"),
        (Difference(None), "differs from full in spaces alone"),
    ],
)
def test_a_difference_is_told(found: Difference, told: str) -> None:
    assert found.told("full") == told


@pytest.fixture
def answers(completion: dict[str, Any]) -> Answers:
    def timed(text: str, seconds: float) -> TimedAnswer:
        choice = completion["choices"][0] | {"message": {"content": text}}
        answer = Answer.model_validate(completion | {"choices": [choice]})
        return TimedAnswer(answer, seconds / 2, seconds)

    return {
        "full": [timed("two red", 3.0), timed("two red", 1.0), timed("two red", 8.0)],
        "half": [timed("two red", 1.0), timed("two", 1.0)],
        "exit": [timed("two blue", 0.5)],
    }


def test_times_are_medians(answers: Answers) -> None:
    full, half, _ = results_of(answers)
    assert (full.seconds, full.first_token_seconds) == (3.0, 1.5)
    assert (full.is_repeatable, half.is_repeatable) == (True, False)


def test_json_has_each_time_and_the_difference(answers: Answers) -> None:
    told = as_json(results_of(answers), {"question": "?"})
    assert (told["schema"], told["baseline"]) == ("skipserve.compare/1", "full")
    full, half, other = told["policies"]
    assert full["seconds_each"] == [3.0, 1.0, 8.0]
    assert [it["agrees"] for it in (full, half, other)] == [True, True, False]
    assert other["first_difference"] == {"word": 2, "baseline": "red", "here": "blue"}
    assert other["answer"]["skip"]["saved_ratio"] == 0.25


@pytest.mark.parametrize("width", [60, 80])
def test_equal_answers_are_shown_once(answers: Answers, width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(results_shown(results_of(answers), "caption"))
    shown = captured.get()
    assert max(map(len, shown.splitlines())) <= width
    assert "full, half\n  two red" in shown
    assert "word 2: 'blue', where full has 'red'" in shown
    assert "half gave other answers in other repeats" in shown
