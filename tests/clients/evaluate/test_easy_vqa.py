"""easy-VQA as it lies on disk, on a small copy made here."""

import json
from pathlib import Path

import pytest
from PIL import Image

from skipserve_client.evaluate.easy_vqa import (
    Attributes,
    EasyQuestion,
    EasyType,
    blind_answers,
    read_easy_vqa,
)

pytestmark = pytest.mark.fast

QUESTIONS: list[list[object]] = [
    ["what is the blue shape?", "rectangle", 0],
    ["is there a triangle?", "no", 0],
    ["is there not a blue shape?", "no", 0],
    ["is no red shape present?", "yes", 1],
    ["does the image contain a circle?", "yes", 1],
    ["is there a triangle?", "yes", 2],
    ["is there a triangle?", "no", 1],
]


def _write(folder: Path, questions: object, images: int = 3) -> Path:
    (folder / "train" / "images").mkdir(parents=True)
    for number in range(images):
        Image.new("RGB", (8, 8)).save(folder / "train" / "images" / f"{number}.png")
    (folder / "train" / "questions.json").write_text(json.dumps(questions))
    return folder


@pytest.mark.parametrize("below", ["", "data", "easy_vqa/data"])
def test_a_split_is_found_where_the_package_has_it(tmp_path: Path, below: str) -> None:
    _write(tmp_path / below, QUESTIONS)
    split = read_easy_vqa(tmp_path, "train")
    assert sorted(split.images) == [0, 1, 2]
    assert split.images[2].name == "2.png"
    assert split.questions[0] == EasyQuestion("what is the blue shape?", "rectangle", 0)


@pytest.mark.parametrize(
    ("text", "answer", "kind"),
    [
        ("what color is the circle?", "gray", EasyType.COLOUR),
        ("what is the gray shape?", "circle", EasyType.SHAPE),
        ("is there a gray shape?", "yes", EasyType.POSITIVE_PRESENT),
        ("is there a gray shape?", "no", EasyType.POSITIVE_ABSENT),
        ("does the image not contain a circle?", "no", EasyType.NEGATED_PRESENT),
        ("is no circle present?", "yes", EasyType.NEGATED_ABSENT),
    ],
)
def test_types_follow_from_form_and_answer(text: str, answer: str, kind: EasyType) -> None:
    assert EasyQuestion(text, answer, 0).type is kind


def test_attributes_are_put_together_from_questions(tmp_path: Path) -> None:
    split = read_easy_vqa(_write(tmp_path, QUESTIONS), "train")
    assert split.attributes() == {
        0: Attributes("blue", "rectangle"),
        1: Attributes(None, "circle"),
        2: Attributes(None, "triangle"),
    }


def test_an_attribute_is_known_when_all_others_are_absent(tmp_path: Path) -> None:
    questions = [["is there a triangle?", "no", 0], ["is there not a circle?", "yes", 0]]
    split = read_easy_vqa(_write(tmp_path, questions), "train")
    assert split.attributes()[0] == Attributes(None, "rectangle")


def test_the_blind_answer_is_the_commonest(tmp_path: Path) -> None:
    split = read_easy_vqa(_write(tmp_path, QUESTIONS), "train")
    assert blind_answers(split)["is there a triangle?"] == "no"


@pytest.mark.parametrize(
    ("questions", "said"),
    [
        ([["is there a star?", "maybe", 0]], "'maybe' is none of the 13"),
        ([["is there a star?", "yes"]], "expected a list of"),
        ({"questions": []}, "expected a list of"),
        ([["is there a star?", "yes", 7]], r"has no picture 7\.png"),
        (7, "expected a list of"),
    ],
)
def test_other_data_is_refused(tmp_path: Path, questions: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_easy_vqa(_write(tmp_path, questions), "train")


def test_a_folder_without_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not hold easy-VQA"):
        read_easy_vqa(tmp_path, "train")
