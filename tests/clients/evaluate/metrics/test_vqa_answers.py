"""Answers are made alike as VQA's program does it: cases worked out from its published rules."""

import pytest

from skipserve_client.evaluate.metrics.vqa_answers import normalised, spoken

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("Yes.", "yes"),
        ("the Dog", "dog"),
        ("Two", "2"),
        ("none", "0"),
        ("ten dogs", "10 dogs"),
        ("red, white", "red white"),  # at a word's edge: dropped
        ("black/white", "black white"),  # between words: a space
        ("t-shirt", "t shirt"),
        ("t-shirt - red", "tshirt red"),  # one at an edge, and all of its kind are dropped
        ("1,000", "1000"),
        ("1,000 black/white", "1000 blackwhite"),  # beside such a number all signs are dropped
        ("3.5", "3.5"),
        ("st. louis", "st louis"),
        ("5 p.m.", "5 pm"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("lets", "lets"),
        ("hed", "he'd"),
        ("shed", "shed"),
        ("somebody'd", "somebodyd"),
        ("a\nbig\tcat", "big cat"),
        ("what?", "what"),
        ("an", ""),
    ],
)
def test_signs_numbers_articles_and_contractions(answer: str, plain: str) -> None:
    assert normalised(answer) == plain


@pytest.mark.parametrize(
    ("answer", "plain"), [("dog's bowl", "dog 's bowl"), ("red,blue", "redblue"), ("No?", "no")]
)
def test_textvqa_takes_more_apart(answer: str, plain: str) -> None:
    assert spoken(answer) == plain
