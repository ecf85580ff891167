"""GQA, from files of its published form."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skipserve_client.evaluate.data_sets.gqa import GQA

pytestmark = pytest.mark.fast


def test_gqa(write: Callable[[str, object], Path], paint: Callable[[str], Path]) -> None:
    question = {
        "imageId": "n161313",
        "question": "Is it overcast?",
        "answer": "no",
        "types": {"structural": "verify", "semantic": "attr", "detailed": "weatherVerify"},
    }
    paint("images/n161313.jpg")
    root = write("testdev_balanced_questions.json", {"201307251": question}).parent
    (found,) = GQA.questions(root, None).samples
    assert found.question.splitlines()[0] == "Is it overcast?"
    assert (found.answers, found.type, found.part) == (("no",), "verify", "attr")
    assert (found.id, found.metric, found.index) == ("201307251", "gqa", 0)
