"""TextVQA with and without what OCR read, from files of its published form."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.text_vqa import TEXT_VQA, TEXT_VQA_OCR

pytestmark = pytest.mark.fast

SHORT = "Answer the question using a single word or phrase."


@pytest.fixture
def root(write: Callable[[str, object], Path], paint: Callable[[str], Path]) -> Path:
    question = {
        "question_id": 34602,
        "image_id": "003a8ae2ef43b901",
        "question": "what is the brand of this camera?",
        "answers": ["dakota"] * 10,
    }
    paint("train_images/003a8ae2ef43b901.jpg")
    return write("TextVQA_0.5.1_val.json", {"data": [question]}).parent


def test_without_ocr(root: Path) -> None:
    (found,) = TEXT_VQA.questions(root, None).samples
    assert found.question == f"what is the brand of this camera?\n{SHORT}"
    assert (found.answers, found.metric) == (("dakota",) * 10, "textvqa")


def test_with_ocr(root: Path, write: Callable[[str, object], Path]) -> None:
    with pytest.raises(CommandError, match=r"TextVQA_Rosetta_OCR_v0.2_val.json is missing"):
        TEXT_VQA_OCR.questions(root, None)
    tokens = [{"image_id": "003a8ae2ef43b901", "ocr_tokens": ["DAKOTA", "DIGITAL"]}]
    write("TextVQA_Rosetta_OCR_v0.2_val.json", {"data": tokens})
    (found,) = TEXT_VQA_OCR.questions(root, None).samples
    assert found.question == (
        f"what is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL\n{SHORT}"
    )
