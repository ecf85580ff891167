"""VQAv2 and OK-VQA: questions about COCO's pictures, each answered by ten people."""

from collections.abc import Iterator

from skipserve_client.evaluate.data_sets.data_set import UNPLACED, DataSet
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.data_sets.prompts import short_question
from skipserve_client.evaluate.sample import Sample

PICTURE = "val2014/COCO_val2014_{:012d}.jpg"
_QUESTIONS, _ANNOTATIONS = (
    "OpenEnded_mscoco_val2014_questions.json",
    "mscoco_val2014_annotations.json",
)


def _read(folder: Folder, prefix: str) -> Iterator[Sample]:
    """Yield the questions; the type is that of the answer, or of OK-VQA's question."""
    questions = folder.json(prefix + _QUESTIONS)
    annotations = folder.json(prefix + _ANNOTATIONS)
    with folder.reading(folder.path / (prefix + _ANNOTATIONS)):
        kinds = annotations.get("question_types", {})
        answers = {it["question_id"]: it for it in annotations["annotations"]}
    with folder.reading(folder.path / (prefix + _QUESTIONS)):
        for question in questions["questions"]:
            number = question["question_id"]
            answered = answers[number]
            kind = kinds.get(answered["question_type"], answered["answer_type"])
            yield Sample(
                index=UNPLACED,
                image=folder.path / PICTURE.format(question["image_id"]),
                question=short_question(question["question"]),
                answers=tuple(it["answer"] for it in answered["answers"]),
                type=kind,
                name=f"{folder.data}, question {number}",
                id=str(number),
                metric="vqa",
            )


VQA_V2 = DataSet(
    "vqav2",
    f"v2_{_QUESTIONS}, v2_{_ANNOTATIONS} and val2014/COCO_val2014_*.jpg",
    lambda folder: _read(folder, "v2_"),
)
OK_VQA = DataSet(
    "ok-vqa",
    f"{_QUESTIONS}, {_ANNOTATIONS} and val2014/COCO_val2014_*.jpg",
    lambda folder: _read(folder, ""),
)
