"""Questions of several steps as questions of an evaluation."""

from collections import Counter

import pytest
from PIL import Image

from skipserve_client.evaluate.questions_by_name import questions_of
from skipserve_client.evaluate.step_samples import step_samples

pytestmark = pytest.mark.fast


def test_depths_take_turns_and_fewer_are_the_first_of_more() -> None:
    samples = step_samples(24)
    assert Counter(it.type for it in samples) == dict.fromkeys(
        ("1 step", "2 steps", "3 steps", "4 steps"), 6
    )
    assert [(it.question, it.answers) for it in step_samples(8)] == [
        (it.question, it.answers) for it in samples[:8]
    ]
    assert {it.part for it in samples if it.type == "3 steps"} == {"chain", "count", "comparison"}
    assert isinstance(samples[0].image, Image.Image)


def test_the_name_stands_for_them() -> None:
    questions = questions_of("demo-steps", None, 4)
    assert (questions.name, len(questions.samples)) == ("demo-steps", 4)
