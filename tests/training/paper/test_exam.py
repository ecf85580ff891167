"""What is asked of a model: apart from what is trained on, and scored by its own kind."""

from pathlib import Path

import pytest
from tiny_lessons import write_captions, write_vqa

from skipserve_training.mapping.lessons import Probe
from skipserve_training.mapping.sources import read_source
from skipserve_training.paper.exam import (
    CaptionExam,
    EasyExam,
    Exam,
    VqaExam,
    divide,
    read_exam,
)
from skipserve_training.paper.setup import Scoring

pytestmark = pytest.mark.fast


def _exam(data: str) -> Exam:
    trained_on, asked = divide(data, None)
    return read_exam(read_source(trained_on), asked)


def test_easy_vqa_has_its_own_test_split(easy_folder: Path) -> None:
    trained_on, asked = divide(f"easy-vqa:{easy_folder}", None)
    assert (trained_on, asked) == (f"easy-vqa:{easy_folder}", f"easy-vqa:{easy_folder}#test")
    exam = _exam(trained_on)
    assert isinstance(exam, EasyExam)
    assert (len(exam), exam.scoring) == (3, Scoring.ANSWER)
    assert [probe.answers for probe in exam.probes(1)][:2] == [("red",), ("rectangle",)]
    assert exam.blind(Probe("is there a red shape?", (), "")) in {"yes", "no"}
    assert exam.blind(Probe("is there a cat?", (), "")) is None


@pytest.mark.parametrize(
    ("annotators", "scoring"), [(10, Scoring.VOTES), (1, Scoring.ANSWER), (9, Scoring.ANSWER)]
)
def test_ten_annotators_vote(annotators: int, scoring: Scoring, tmp_path: Path) -> None:
    folder = write_vqa(tmp_path / "data", "vit", 4, annotators)
    assert _exam(f"vqa:{folder}").scoring is scoring


def test_the_blind_know_what_is_trained_on(tmp_path: Path) -> None:
    folder = write_vqa(tmp_path / "data", "vit", 4)
    exam = _exam(f"vqa:{folder}")
    assert isinstance(exam, VqaExam)
    assert exam.blind(Probe("how many?", (), "")) == "2"
    assert exam.blind(Probe("what is new?", (), "")) == "yes"  # of all answers the commonest
    assert {probe.question for probe in exam.probes(0)} == {"is it red?", "how many?"}


def test_who_does_not_look_has_no_caption(tmp_path: Path) -> None:
    exam = _exam(f"captions:{write_captions(tmp_path / 'data', 'vit', 4)}")
    assert exam.blind(exam.probes(0)[0]) is None
    assert len(exam.probes(0)[0].answers) == 2
    assert exam.scoring is Scoring.CAPTIONS
    assert isinstance(exam, CaptionExam)


def test_captions_of_easy_vqa_are_not_asked_for(easy_folder: Path) -> None:
    with pytest.raises(ValueError, match="expected easy-vqa, vqa or captions"):
        _exam(f"easy-vqa-captions:{easy_folder}")


@pytest.mark.parametrize(
    ("data", "test", "parts"),
    [
        ("vqa:a", None, ("vqa:a#train", "vqa:a#test")),
        ("vqa:a", "vqa:b", ("vqa:a", "vqa:b")),
        ("vqa:a#train", "vqa:a#test", ("vqa:a#train", "vqa:a#test")),
        ("vqa:a#train", "vqa:b", ("vqa:a#train", "vqa:b")),
        ("easy-vqa:a", "easy-vqa:b#test", ("easy-vqa:a", "easy-vqa:b#test")),
    ],
)
def test_data_and_test_are_apart(data: str, test: str | None, parts: tuple[str, str]) -> None:
    assert divide(data, test) == parts


@pytest.mark.parametrize(
    ("data", "test", "said"),
    [
        ("vqa:a", "vqa:a", "they share media"), ("vqa:a", "vqa:./a#test", "they share media"),
        ("vqa:a#test", None, "they share media"), ("vqa:a", "captions:b", "form of the data, vqa"),
        ("coco:a", None, "expected FORM:FOLDER"), ("vqa:a", "b", "expected FORM:FOLDER"),
    ],
)  # fmt: skip
def test_what_is_not_apart_is_refused(data: str, test: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        divide(data, test)
