"""POPE: is there such an object? The absent ones are random, popular, or what goes with others."""

from collections.abc import Iterator

from skipserve_client.evaluate.data_sets.data_set import UNPLACED, DataSet
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.data_sets.prompts import short_question
from skipserve_client.evaluate.sample import Sample

CATEGORIES = ("random", "popular", "adversarial")
_FILE = "coco_pope_{}.json"


def _read(folder: Folder) -> Iterator[Sample]:
    for category in CATEGORIES:
        name = _FILE.format(category)
        with folder.reading(folder.path / name):
            for question in folder.json_lines(name):
                number = question["question_id"]
                yield Sample(
                    index=UNPLACED,
                    image=folder.path / "val2014" / question["image"],
                    question=short_question(question["text"]),
                    answers=(question["label"],),
                    type=category,
                    name=f"pope, {category} question {number}",
                    id=f"{category}/{number}",
                    metric="pope",
                )


POPE = DataSet(
    "pope",
    f"{', '.join(map(_FILE.format, CATEGORIES))} and val2014/COCO_val2014_*.jpg",
    _read,
)
