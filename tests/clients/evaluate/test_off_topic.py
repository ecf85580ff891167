"""What is refused: many questions, none of them about shapes, the splits apart."""

import random
import re

import pytest

from skipserve_client.evaluate.off_topic import REFUSAL, draw_off_topic
from skipserve_client.evaluate.questions import QuestionType, draw_question
from skipserve_client.evaluate.scenes import COLOURS, SHAPES, SIZES, Split, make_scene

pytestmark = pytest.mark.fast


def _drawn(split: Split, count: int = 2000) -> set[str]:
    rng = random.Random(f"off-topic/{split}")
    return {draw_off_topic(split, rng) for _ in range(count)}


def test_there_are_many_and_the_splits_share_none() -> None:
    train, held_out = _drawn(Split.TRAIN), _drawn(Split.HELD_OUT)
    assert len(train) > 700
    assert len(held_out) > 300
    assert not {text.lower() for text in train} & {text.lower() for text in held_out}


def test_held_out_nouns_are_not_trained_on() -> None:
    train = {word for text in _drawn(Split.TRAIN) for word in _words(text)}
    for noun in ("boy", "giraffe", "volcano", "violin", "election", "France"):
        assert noun not in train


@pytest.mark.parametrize("split", list(Split))
def test_none_asks_about_the_shapes(split: Split) -> None:
    own = {*SHAPES, *COLOURS, *SIZES, "object", "objects", *(f"{shape}s" for shape in SHAPES)}
    asked_of_shapes = re.compile(r"\b(small|large)\b")
    for text in _drawn(split):
        named = set(_words(text)) & own
        assert len(named) <= 1, text  # "the square root", "is the sky blue"
        assert not asked_of_shapes.search(text), text


@pytest.mark.parametrize("split", list(Split))
def test_no_pattern_is_left_open(split: Split) -> None:
    for text in _drawn(split):
        assert "{" not in text
        assert text == text.strip() != ""


def test_every_scene_can_be_asked_beyond_its_shapes() -> None:
    for index in range(20):
        scene = make_scene(Split.HELD_OUT, index)
        question = draw_question(scene, QuestionType.REFUSAL, random.Random(index))
        assert question is not None
        assert question.answer == REFUSAL
        assert question.type is QuestionType.REFUSAL


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", text)
