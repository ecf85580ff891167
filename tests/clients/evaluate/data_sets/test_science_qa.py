"""ScienceQA, from files of its published form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skipserve_client.evaluate.data_sets.science_qa import SCIENCE_QA

pytestmark = pytest.mark.fast


def problem(**changes: Any) -> dict[str, Any]:
    return {
        "question": "Which of these states is farthest north?",
        "choices": ["West Virginia", "Louisiana", "Arizona", "Oklahoma"],
        "answer": 0,
        "hint": "",
        "image": "image.png",
        "grade": "grade2",
        "subject": "social science",
        "split": "test",
    } | changes


@pytest.fixture
def root(write: Callable[[str, object], Path], paint: Callable[[str], Path]) -> Path:
    paint("images/test/11/image.png")
    paint("images/test/12/image.png")
    write("pid_splits.json", {"test": ["11", "12", "13"], "train": ["14"]})
    problems = {
        "11": problem(),
        "12": problem(hint="Look at it.", grade="grade8", choices=["x", "y"], answer=1),
        "13": problem(image=None),
        "14": problem(),
    }
    return write("problems.json", problems).parent


def test_questions_with_pictures_of_the_test_split(root: Path) -> None:
    found = {it.id: it for it in SCIENCE_QA.questions(root, None).samples}
    assert found.keys() == {"11", "12"}
    assert found["11"].question.splitlines() == [
        "Which of these states is farthest north?",
        "A. West Virginia",
        "B. Louisiana",
        "C. Arizona",
        "D. Oklahoma",
        "Answer with the option's letter from the given choices directly.",
    ]
    assert found["12"].question.startswith("Context: Look at it.\nWhich of these")
    assert (found["11"].answers, found["12"].answers) == (("A",), ("B",))
    assert (found["11"].type, found["11"].part) == ("social science", "grades 1-6")
    assert (found["12"].part, found["12"].choices) == ("grades 7-12", ("x", "y"))
