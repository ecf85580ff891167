"""POPE, from files of its published form: JSON lines."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.pope import CATEGORIES, POPE

pytestmark = pytest.mark.fast

PICTURE = "COCO_val2014_000000310196.jpg"


@pytest.fixture
def root(write: Callable[[str, object], Path], paint: Callable[[str], Path]) -> Path:
    paint(f"val2014/{PICTURE}")
    for category in CATEGORIES:
        lines = [
            {"question_id": number, "image": PICTURE, "text": "Is there a car?", "label": label}
            for number, label in ((1, "yes"), (2, "no"))
        ]
        file = write(f"coco_pope_{category}.json", "\n".join(map(json.dumps, lines)) + "\n")
    return file.parent


def test_pope(root: Path) -> None:
    samples = POPE.questions(root, None).samples
    assert {(it.type, it.answers[0]) for it in samples} == {
        (category, label) for category in CATEGORIES for label in ("yes", "no")
    }
    assert samples[0].question.startswith("Is there a car?\nAnswer the question")
    assert samples[0].metric == "pope"


def test_the_first_so_many_are_spread_over_the_categories(root: Path) -> None:
    assert {it.type for it in POPE.questions(root, 3).samples} == set(CATEGORIES)


def test_a_category_is_missing(root: Path) -> None:
    (root / "coco_pope_popular.json").unlink()
    with pytest.raises(CommandError, match=r"coco_pope_popular.json is missing"):
        POPE.questions(root, None)
