"""The held-out list: fixed, evenly spread over the types, apart from training."""

from collections import Counter
from itertools import islice

import pytest

from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.questions import QUESTION_TYPES
from skipserve_client.evaluate.scenes import CANVAS, Split

pytestmark = pytest.mark.fast


def test_examples_are_fixed_and_a_longer_list_begins_alike() -> None:
    short = list(demo_examples(Split.HELD_OUT, 16))
    longer = list(islice(demo_examples(Split.HELD_OUT, 32), 16))
    for one, other in zip(short, longer, strict=True):
        assert (one.question, one.answer, one.type) == (other.question, other.answer, other.type)
        assert one.image.tobytes() == other.image.tobytes()


def test_types_come_in_turn() -> None:
    examples = list(demo_examples(Split.HELD_OUT, 80))
    assert Counter(example.type for example in examples) == dict.fromkeys(QUESTION_TYPES, 10)


def test_an_example_is_plain() -> None:
    example = next(demo_examples(Split.HELD_OUT, 1))
    assert type(example.answer) is str
    assert example.image.size == (CANVAS, CANVAS)
    assert example.image.mode == "RGB"


def test_splits_differ() -> None:
    train = {example.image.tobytes() for example in demo_examples(Split.TRAIN, 30)}
    held_out = {example.image.tobytes() for example in demo_examples(Split.HELD_OUT, 30)}
    assert len(train) == len(held_out) == 30
    assert not train & held_out


def test_nothing_is_asked_for_nothing() -> None:
    assert list(demo_examples(Split.HELD_OUT, 0)) == []
