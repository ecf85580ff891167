"""VQAv2 and OK-VQA, from files of their published form."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.vqa import OK_VQA, VQA_V2
from skipserve_client.evaluate.sample import Sample

pytestmark = pytest.mark.fast

Write = Callable[[str, object], Path]
ANSWERS = [{"answer": "yes" if number < 8 else "no", "answer_id": number} for number in range(10)]


def folder(write: Write, paint: Callable[[str], Path], prefix: str, **extra: object) -> Path:
    asked = [(262148000, 262148, "Is it down?"), (393225001, 393225, "What is it?")]
    paint("val2014/COCO_val2014_000000262148.jpg")
    paint("val2014/COCO_val2014_000000393225.jpg")
    questions = [
        {"question_id": number, "image_id": image, "question": text}
        for number, image, text in asked
    ]
    annotations = [
        {
            "question_id": number,
            "image_id": image,
            "question_type": "one",
            "answer_type": "yes/no",
            "answers": ANSWERS,
        }
        for number, image, _ in reversed(asked)
    ]
    write(f"{prefix}OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    return write(
        f"{prefix}mscoco_val2014_annotations.json", {"annotations": annotations} | extra
    ).parent


def by_id(samples: "tuple[Sample, ...]") -> dict[str | None, Sample]:
    return {sample.id: sample for sample in samples}


def test_vqav2(write: Write, paint: Callable[[str], Path]) -> None:
    root = folder(write, paint, "v2_")
    questions = VQA_V2.questions(root, None)
    assert questions.name == "vqav2"
    found = by_id(tuple(questions.samples))["262148000"]
    assert found.question == ("Is it down?\nAnswer the question using a single word or phrase.")
    assert found.image == root / "val2014/COCO_val2014_000000262148.jpg"
    assert (found.answers.count("yes"), len(found.answers)) == (8, 10)
    assert (found.type, found.metric) == ("yes/no", "vqa")


def test_ok_vqa_names_its_types(write: Write, paint: Callable[[str], Path]) -> None:
    root = folder(write, paint, "", question_types={"one": "Vehicles and Transportation"})
    kinds = {sample.type for sample in OK_VQA.questions(root, None).samples}
    assert kinds == {"Vehicles and Transportation"}


@pytest.mark.parametrize(
    "name",
    [
        "v2_OpenEnded_mscoco_val2014_questions.json",
        "v2_mscoco_val2014_annotations.json",
        "val2014/COCO_val2014_000000393225.jpg",
    ],
)
def test_what_is_missing_is_named(write: Write, paint: Callable[[str], Path], name: str) -> None:
    root = folder(write, paint, "v2_")
    (root / name).unlink()
    with pytest.raises(CommandError) as caught:
        VQA_V2.questions(root, None)
    assert str(caught.value).startswith(f"--data vqav2: {root / name} is missing; --data-folder")


def test_a_question_without_annotation_is_no_published_file(
    write: Write, paint: Callable[[str], Path]
) -> None:
    root = folder(write, paint, "v2_")
    write("v2_mscoco_val2014_annotations.json", {"annotations": []})
    with pytest.raises(CommandError, match="not in the form in which it is published"):
        VQA_V2.questions(root, None)
