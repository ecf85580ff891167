"""Questions that are drawn about easy-VQA's pictures."""

import random

import numpy as np
import pytest

from skipserve_client.evaluate.easy_vqa import EasySplit, EasyType
from skipserve_training.mapping.easy_vqa_features import Views
from skipserve_training.mapping.easy_vqa_lessons import EasyCaptions, EasyLessons, answer_for
from skipserve_training.mapping.lessons import Exchange

pytestmark = pytest.mark.fast


def test_each_step_asks_every_type(easy_split: EasySplit) -> None:
    lessons = EasyLessons(easy_split)
    assert len(lessons) == 8
    drawn = lessons.exchanges(1, random.Random(0))
    assert {exchange.kind for exchange in drawn} == set(EasyType)
    by_text = {exchange.question: exchange.answer for exchange in drawn}
    assert by_text["what color is the shape?"] == "red"
    assert by_text["what shape is present?"] == "rectangle"
    assert by_text["is there not a red shape?"] == "no"
    assert drawn == lessons.exchanges(1, random.Random(0))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("what color is the circle?", "red"),
        ("what color is the triangle?", None),
        ("what is the red shape?", "circle"),
        ("what is the color of the shape?", "red"),
        ("what shape does the image contain?", "circle"),
        ("is no circle present?", "no"),
        ("is a blue shape present?", "no"),
        ("does the image not contain a blue shape?", "yes"),
    ],
)
def test_every_text_is_answered_for_every_picture(text: str, answer: str | None) -> None:
    assert answer_for(text, "red", "circle") == answer


def test_the_split_s_own_answers_agree(easy_split: EasySplit) -> None:
    attributes = easy_split.attributes()
    for question in easy_split.questions:
        one = attributes[question.image]
        assert one.colour is not None
        assert one.shape is not None
        assert answer_for(question.text, one.colour, one.shape) == question.answer


def test_views_move_the_shape_and_keep_its_colour(easy_split: EasySplit) -> None:
    lessons = EasyLessons(easy_split)
    views = Views(lessons, 3, seed=1)
    assert len(views) == 24
    assert views.media(1).tobytes() == lessons.media(1).tobytes()
    moved = views.media(9)
    assert moved.tobytes() != lessons.media(1).tobytes()
    assert moved.tobytes() == views.media(9).tobytes()
    assert (255, 0, 0) in {color for _, color in moved.getcolors(4096) or []}


def test_captions_tell_colour_and_shape(easy_split: EasySplit) -> None:
    captions, lessons = EasyCaptions(easy_split), EasyLessons(easy_split)
    assert len(captions) == len(lessons) == 8
    (told,) = captions.exchanges(1, random.Random(0))
    assert told == Exchange(None, "The image shows a red rectangle.", "caption")
    assert captions.kinds == ("caption",)
    assert np.array_equal(np.array(captions.media(1)), np.array(lessons.media(1)))


def test_a_step_asks_as_many_questions_as_it_says(easy_split: EasySplit) -> None:
    assert EasyLessons(easy_split).questions_a_step == 10
    shares = {EasyType.COLOUR: 1, EasyType.POSITIVE_PRESENT: 1}
    lessons = EasyLessons(easy_split, shares)
    assert len(lessons.exchanges(0, random.Random(0))) == lessons.questions_a_step == 2
