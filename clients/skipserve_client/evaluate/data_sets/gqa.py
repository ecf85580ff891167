"""GQA: compositional questions about scenes, its balanced test-dev split."""

from collections.abc import Iterator

from skipserve_client.evaluate.data_sets.data_set import UNPLACED, DataSet
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.data_sets.prompts import short_question
from skipserve_client.evaluate.sample import Sample

_FILE = "testdev_balanced_questions.json"


def _read(folder: Folder) -> Iterator[Sample]:
    """Yield the questions by what they ask for (verify, query, ...) and about (attr, ...)."""
    with folder.reading(folder.path / _FILE):
        for number, question in folder.json(_FILE).items():
            yield Sample(
                index=UNPLACED,
                image=folder.path / "images" / f"{question['imageId']}.jpg",
                question=short_question(question["question"]),
                answers=(question["answer"],),
                type=question["types"]["structural"],
                name=f"gqa, question {number}",
                id=number,
                part=question["types"]["semantic"],
                metric="gqa",
            )


GQA = DataSet("gqa", f"{_FILE} and images/*.jpg", _read)
