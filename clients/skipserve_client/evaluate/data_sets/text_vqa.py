"""TextVQA: questions about writing in pictures, its validation split."""

from collections.abc import Iterator, Mapping, Sequence

from skipserve_client.evaluate.data_sets.data_set import UNPLACED, DataSet
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.data_sets.prompts import SHORT
from skipserve_client.evaluate.sample import Sample

_FILE = "TextVQA_0.5.1_val.json"
_OCR_FILE = "TextVQA_Rosetta_OCR_v0.2_val.json"
_PICTURES = "train_images"


def _read(folder: Folder) -> Iterator[Sample]:
    yield from _samples(folder, None)


def _read_with_ocr(folder: Folder) -> Iterator[Sample]:
    """Yield the questions with what OCR read, as LLaVA-1.5's published figures are measured."""
    with folder.reading(folder.path / _OCR_FILE):
        tokens = {it["image_id"]: it["ocr_tokens"] for it in folder.json(_OCR_FILE)["data"]}
    yield from _samples(folder, tokens)


def _samples(folder: Folder, tokens: Mapping[str, Sequence[str]] | None) -> Iterator[Sample]:
    with folder.reading(folder.path / _FILE):
        for question in folder.json(_FILE)["data"]:
            number, picture = question["question_id"], question["image_id"]
            lines = [question["question"], SHORT]
            if tokens is not None:
                lines.insert(1, f"Reference OCR token: {', '.join(tokens[picture])}")
            yield Sample(
                index=UNPLACED,
                image=folder.path / _PICTURES / f"{picture}.jpg",
                question="\n".join(lines),
                answers=tuple(question["answers"]),
                type="all",
                name=f"{folder.data}, question {number}",
                id=str(number),
                metric="textvqa",
            )


TEXT_VQA = DataSet("textvqa", f"{_FILE} and {_PICTURES}/*.jpg", _read)
TEXT_VQA_OCR = DataSet("textvqa-ocr", f"{_FILE}, {_OCR_FILE} and {_PICTURES}/*.jpg", _read_with_ocr)
