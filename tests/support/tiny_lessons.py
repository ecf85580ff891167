"""Small data sets in VQAv2's format and in COCO's, of any medium."""

import json
from pathlib import Path

from tiny_encoders import ENCODERS

_QUESTIONS = (("is it red?", "yes", "yes/no"), ("how many?", "2", "number"))


def write_vqa(folder: Path, kind: str, count: int, annotators: int = 10, first: int = 1) -> Path:
    """Write questions about media of an encoder's type, numbered from `first`.

    Of the annotators of each question three in ten say something else than the others.
    """
    numbers = range(first, first + count)
    _write_media(folder, kind, numbers)
    asked = [
        (10 * number + place, number, *question)
        for number in numbers
        for place, question in enumerate(_QUESTIONS)
    ]
    questions = [
        {"question_id": key, "image_id": number, "question": text}
        for key, number, text, _, _ in asked
    ]
    annotations = [
        {
            "question_id": key,
            "answer_type": answer_type,
            "answers": [
                {"answer": "maybe" if place % 10 > 6 else answer} for place in range(annotators)
            ],
        }
        for key, _, _, answer, answer_type in asked
    ]
    (folder / "questions.json").write_text(json.dumps({"questions": questions}))
    (folder / "annotations.json").write_text(json.dumps({"annotations": annotations}))
    return folder


def write_captions(folder: Path, kind: str, count: int) -> Path:
    """Write two captions of each of some media of an encoder's type."""
    numbers = range(1, count + 1)
    _write_media(folder, kind, numbers)
    names = {int(path.stem): path.name for path in (folder / "media").iterdir()}
    captions = {
        "images": [{"id": number, "file_name": names[number]} for number in numbers],
        "annotations": [
            {"image_id": number, "caption": text}
            for number in numbers
            for text in (f"a thing {number}", "noise")
        ],
    }
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


def _write_media(folder: Path, kind: str, numbers: range) -> None:
    (folder / "media").mkdir(parents=True)
    for number in numbers:
        ENCODERS[kind].write_media(folder / "media" / str(number), number)
