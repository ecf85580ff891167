"""MME, in both of its published layouts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.mme import MME
from skipserve_client.evaluate.metrics.mme import SUBTASKS

pytestmark = pytest.mark.fast

LINES = (
    "Is there a car? Please answer yes or no.\tYes\nIs there a dog? Please answer yes or no.\tNo\n"
)


@pytest.fixture
def root(
    tmp_path: Path, write: Callable[[str, object], Path], paint: Callable[[str], Path]
) -> Path:
    for subtask in SUBTASKS:
        for name in ("a", "b"):
            if subtask in ("artwork", "landmark"):
                paint(f"{subtask}/images/{name}.jpg")
                write(f"{subtask}/questions_answers_YN/{name}.txt", LINES)
            else:
                paint(f"{subtask}/{name}.png")
                write(f"{subtask}/{name}.txt", LINES)
    return tmp_path


def test_every_picture_has_its_two_questions(root: Path) -> None:
    samples = MME.questions(root, None).samples
    assert len(samples) == 14 * 2 * 2
    first, second = samples[:2]
    assert first.group == second.group
    assert first.question == "Is there a car? Please answer yes or no."
    assert (first.answers, second.answers) == (("yes",), ("no",))
    assert {it.part for it in samples} == {"perception", "cognition"}
    assert {it.image for it in samples if it.type == "artwork"} == {
        root / "artwork/images/a.jpg",
        root / "artwork/images/b.jpg",
    }


def test_the_first_so_many_are_pictures(root: Path) -> None:
    samples = MME.questions(root, 14).samples
    assert len(samples) == 28
    assert {it.type for it in samples} == set(SUBTASKS)


def test_a_subtask_is_missing(root: Path) -> None:
    (root / "celebrity").rename(root / "celebrities")
    with pytest.raises(CommandError, match=r"celebrity is missing; --data-folder holds a folder a"):
        MME.questions(root, None)


def test_a_line_without_answer_is_told(root: Path) -> None:
    (root / "count" / "a.txt").write_text("Is there a car?")
    with pytest.raises(CommandError, match=r"count/a.txt is not in the form"):
        MME.questions(root, None)
