"""Folders in VQAv2's and COCO's formats."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_lessons import write_captions, write_vqa

from skipserve_training.mapping.lessons import Exchange, Probe
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


def test_all_answers_of_annotators_are_told(tmp_path: Path) -> None:
    lessons = VqaLessons(_write(tmp_path, questions=QUESTIONS, annotations=ANNOTATIONS))
    assert lessons.probes(0) == [
        Probe("Is it red?", ("yes",) * 10, "yes/no"),
        Probe("How many?", ("1", "2"), "number"),
    ]
    assert lessons.questions_a_step == 2


def test_all_captions_are_told_as_one(tmp_path: Path) -> None:
    lessons = CaptionLessons(_write(tmp_path, captions=CAPTIONS))
    assert lessons.probes(0) == [Probe(None, ("A dog.", "A cat."), "caption")]


@pytest.mark.parametrize("form", ["vqa", "captions"])
def test_parts_share_no_medium_and_leave_none_out(form: str, tmp_path: Path) -> None:
    write = write_vqa if form == "vqa" else write_captions
    folder = write(tmp_path / "data", "vit", 21)
    whole, train, test = (read_source(f"{form}:{folder}{part}") for part in ("", "#train", "#test"))
    assert (len(whole), len(train), len(test)) == (21, 18, 3)
    numbers = [set(it._media) for it in (whole, train, test)]  # type: ignore[attr-defined]
    assert numbers[1] | numbers[2] == numbers[0]
    assert not numbers[1] & numbers[2]
    again = read_source(f"{form}:{folder}#test")
    assert again._media == test._media  # type: ignore[attr-defined]


def test_one_medium_has_no_parts(tmp_path: Path) -> None:
    folder = write_vqa(tmp_path / "data", "vit", 1)
    with pytest.raises(ValueError, match="has 1 media: two parts take two at least"):
        read_source(f"vqa:{folder}#test")


def test_easy_vqa_is_published_in_parts(easy_folder: Path) -> None:
    lengths = [len(read_source(f"easy-vqa:{easy_folder}{it}")) for it in ("", "#train", "#test")]
    assert lengths == [8, 8, 3]


@pytest.mark.parametrize("text", ["easy-vqa", "coco:/tmp", "vqa:", "vqa:#test"])
def test_data_is_named_by_form_and_folder(text: str) -> None:
    with pytest.raises(ValueError, match="expected FORM:FOLDER with a form of easy-vqa, easy"):
        read_source(text)
