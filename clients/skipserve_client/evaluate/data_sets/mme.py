"""MME: two questions on each picture, one to be answered yes and one no; fourteen subtasks."""

from collections.abc import Iterator
from pathlib import Path

from skipserve_client.evaluate.data_sets.data_set import UNPLACED, DataSet
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.metrics.mme import COGNITION, SUBTASKS
from skipserve_client.evaluate.sample import Sample

_PICTURES, _QUESTIONS = "images", "questions_answers_YN"
_ENDINGS = (".jpg", ".png")


def _read(folder: Folder) -> Iterator[Sample]:
    """Yield the questions as they stand: each ends with "Please answer yes or no."."""
    for subtask in SUBTASKS:
        root = folder.path / subtask
        if not root.is_dir():
            raise folder.missing(f"{subtask}/")
        has_folders = (root / _QUESTIONS).is_dir()
        texts = sorted((root / _QUESTIONS if has_folders else root).glob("*.txt"))
        if not texts:
            raise folder.missing(f"{subtask}/*.txt")
        for text in texts:
            picture = _picture(root / _PICTURES if has_folders else root, text.stem)
            yield from _samples(folder, subtask, text, picture)


def _picture(root: Path, stem: str) -> Path:
    found = [root / (stem + ending) for ending in _ENDINGS]
    return next((file for file in found if file.is_file()), found[0])


def _samples(folder: Folder, subtask: str, text: Path, picture: Path) -> Iterator[Sample]:
    group = f"{subtask}/{text.stem}"
    with folder.reading(text):
        for number, line in enumerate(text.read_text("utf-8").strip().splitlines(), start=1):
            question, answer = line.strip().split("\t")
            yield Sample(
                index=UNPLACED,
                image=picture,
                question=question,
                answers=(answer.lower(),),
                type=subtask,
                name=f"mme, {group}, line {number}",
                id=f"{group}/{number}",
                part="cognition" if subtask in COGNITION else "perception",
                metric="mme",
                group=group,
            )


MME = DataSet(
    "mme",
    f"a folder a subtask ({', '.join(SUBTASKS)}), each with pictures and *.txt beside each other, "
    f"or in {_PICTURES}/ and {_QUESTIONS}/",
    _read,
)
