"""Other words for the same question, and scenes without objects."""

import random

import pytest

from skipserve_client.evaluate.questions import PHRASINGS, Question, QuestionType, draw_question
from skipserve_client.evaluate.scenes import Split, make_scene
from skipserve_training.demo.recipe import EMPTY_SHARE, REWORDED_SHARE
from skipserve_training.demo.rewording import emptied, reworded

pytestmark = pytest.mark.fast

ASKED = Question(QuestionType.COUNT, "How many red objects are there?", "2")


def _reworded(question: Question, count: int = 2000) -> list[Question]:
    rng = random.Random(0)
    return [reworded(question, rng) for _ in range(count)]


def test_a_share_is_reworded_in_many_ways_and_the_answer_stays() -> None:
    drawn = _reworded(ASKED)
    changed = [question for question in drawn if question != ASKED]
    assert 0.5 * REWORDED_SHARE < len(changed) / len(drawn) <= 1.1 * REWORDED_SHARE
    assert len({question.text for question in changed}) > 50
    assert {(question.type, question.answer) for question in drawn} == {(ASKED.type, "2")}


@pytest.mark.parametrize("kind", list(PHRASINGS))
def test_every_type_is_reworded(kind: QuestionType) -> None:
    rng = random.Random(1)
    for index in range(60):
        question = draw_question(make_scene(Split.TRAIN, index), kind, rng)
        if question is not None:
            texts = {other.text for other in _reworded(question, 60)}
            assert len(texts) > 3
            assert all(text.strip() == text and text for text in texts)


def test_people_write_carelessly() -> None:
    texts = {question.text for question in _reworded(ASKED)}
    assert "how many red objects are there?" in texts
    assert "How many red objects are there" in texts


def test_few_scenes_are_emptied_and_always_the_same() -> None:
    scenes = [make_scene(Split.TRAIN, index) for index in range(480)]
    empty = [not emptied(scene).objects for scene in scenes]
    assert empty == [not emptied(scene).objects for scene in scenes]
    assert 0.4 * EMPTY_SHARE < sum(empty) / len(empty) < 2 * EMPTY_SHARE
    assert all(emptied(scene).background == scene.background for scene in scenes)
