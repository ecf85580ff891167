"""Folders in VQAv2's and COCO's formats."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skipserve_training.mapping.lessons import Exchange
from skipserve_training.mapping.sources import read_source
from skipserve_training.mapping.vqa_lessons import CaptionLessons, VqaLessons

pytestmark = pytest.mark.fast

QUESTIONS = {
    "info": {},
    "questions": [
        {"question_id": 90, "image_id": 9, "question": "Is it red?"},
        {"question_id": 91, "image_id": 9, "question": "How many?"},
    ],
}
ANNOTATIONS = {
    "annotations": [
        {"question_id": 90, "answer_type": "yes/no", "answers": [{"answer": "yes"}] * 10},
        {"question_id": 91, "answer_type": "number", "answers": [{"answer": "1"}, {"answer": "2"}]},
    ],
}
CAPTIONS = {
    "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}],
    "annotations": [{"image_id": 9, "caption": "A dog. "}, {"image_id": 9, "caption": "A cat."}],
}


def _write(folder: Path, **files: Any) -> Path:
    (folder / "media").mkdir()
    Image.new("L", (4, 4), 255).save(folder / "media" / "COCO_train2014_000000000009.jpg")
    for name, content in files.items():
        (folder / f"v2_{name}_train2014.json").write_text(json.dumps(content))
    return folder


def test_questions_and_an_annotators_answer(tmp_path: Path) -> None:
    lessons = VqaLessons(_write(tmp_path, questions=QUESTIONS, annotations=ANNOTATIONS))
    assert (len(lessons), lessons.kinds) == (1, ["number", "yes/no"])
    image = lessons.media(0)
    assert isinstance(image, Image.Image)
    assert image.mode == "RGB"
    drawn = [lessons.exchanges(0, random.Random(seed)) for seed in range(20)]
    assert all(Exchange("Is it red?", "yes", "yes/no") in exchanges for exchanges in drawn)
    assert {exchange.answer for some in drawn for exchange in some} == {"yes", "1", "2"}


def test_captions(tmp_path: Path) -> None:
    lessons = read_source(f"captions:{_write(tmp_path, captions=CAPTIONS)}")
    assert isinstance(lessons, CaptionLessons)
    drawn = {lessons.exchanges(0, random.Random(seed))[0] for seed in range(20)}
    assert drawn == {Exchange(None, text, "caption") for text in ("A dog.", "A cat.")}
    assert isinstance(lessons.media(0), Image.Image)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"questions": QUESTIONS}, r"expected one file \*annotations\*.json, found none"),
        ({"questions": QUESTIONS, "annotations": {"annotations": []}}, "90 has no annotation"),
        ({"questions": {"questions": [{"image_id": 1}]}}, "questions.0.question_id"),
        (
            {
                "questions": {"questions": [{"question_id": 90, "image_id": 8, "question": "?"}]},
                "annotations": ANNOTATIONS,
            },
            "lacks 1 media of which the files speak, the first is number 8",
        ),
    ],
)
def test_what_is_missing_is_named(files: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        VqaLessons(_write(tmp_path, **files))


@pytest.mark.parametrize("text", ["easy-vqa", "coco:/tmp", "vqa:"])
def test_data_is_named_by_form_and_folder(text: str) -> None:
    with pytest.raises(ValueError, match="expected FORM:FOLDER with a form of easy-vqa, easy"):
        read_source(text)
