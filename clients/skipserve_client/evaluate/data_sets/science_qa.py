"""ScienceQA: school questions with options; those of the test split that have a picture."""

from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from skipserve_client.evaluate.data_sets.data_set import UNPLACED, DataSet
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.data_sets.prompts import letter_question
from skipserve_client.evaluate.sample import Sample

_PROBLEMS, _SPLITS, _SPLIT = "problems.json", "pid_splits.json", "test"
_PRIMARY = {f"grade{number}" for number in range(1, 7)}


def _read(folder: Folder) -> Iterator[Sample]:
    """Yield the questions by subject, and the halves of school that the authors report."""
    with folder.reading(folder.path / _SPLITS):
        chosen = folder.json(_SPLITS)[_SPLIT]
    with folder.reading(folder.path / _PROBLEMS):
        problems = folder.json(_PROBLEMS)
        for number in chosen:
            if problems[number]["image"]:
                yield _sample(folder, number, problems[number])


def _sample(folder: Folder, number: str, problem: Any) -> Sample:
    context = f"Context: {problem['hint']}" if problem["hint"] else ""
    return Sample(
        index=UNPLACED,
        image=folder.path / "images" / _SPLIT / number / problem["image"],
        question=letter_question(problem["question"], problem["choices"], context),
        answers=(ascii_uppercase[problem["answer"]],),
        type=problem["subject"],
        name=f"scienceqa, problem {number}",
        id=number,
        part="grades 1-6" if problem["grade"] in _PRIMARY else "grades 7-12",
        metric="letter",
        choices=tuple(problem["choices"]),
    )


SCIENCE_QA = DataSet(
    "scienceqa", f"{_PROBLEMS}, {_SPLITS} and images/{_SPLIT}/NUMBER/image.png", _read
)
