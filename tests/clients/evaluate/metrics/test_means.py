"""Means over questions, against figures worked out by hand."""

import numpy as np
import pytest

from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.means import (
    EXACT,
    GQA,
    LETTER,
    TEXT_VQA,
    VQA,
    MeanMetric,
    commonest,
)

pytestmark = pytest.mark.fast


def worth(metric: MeanMetric, given: str, *expected: str, choices: tuple[str, ...] = ()) -> float:
    (found,) = metric.worths([Item("all", expected, given, choices=choices)])
    return found


@pytest.mark.parametrize(
    ("agreeing", "accuracy"),
    [
        (0, 0.0),
        (1, 0.3),  # nine subsets hold one of three, one subset none
        (2, 0.6),  # eight hold two, two hold one
        (3, 0.9),  # seven hold three, three hold two
        (4, 1.0),
        (10, 1.0),
    ],
)
@pytest.mark.parametrize("metric", [VQA, TEXT_VQA], ids=["vqa", "textvqa"])
def test_vqa_is_averaged_over_the_subsets_of_nine(
    metric: MeanMetric, agreeing: int, accuracy: float
) -> None:
    answers = ["two cats"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
    assert worth(metric, "The 2 cats.", *answers) == pytest.approx(accuracy)


def test_textvqa_makes_genitives_alike() -> None:
    assert worth(TEXT_VQA, "Mary's, bar?", *["mary's bar"] * 10) == 1.0


@pytest.mark.parametrize(
    ("given", "is_right"), [("Yes.", 1), ("yes...", 1), ("yes it is", 0), ("yes ", 0), ("YES", 1)]
)
def test_gqa_wants_the_answer_alone(given: str, is_right: int) -> None:
    assert worth(GQA, given, "yes") == is_right


def test_exact_takes_any_right_answer() -> None:
    assert worth(EXACT, " Yes  indeed.", "yes", "yes indeed") == 1.0
    assert worth(EXACT, "no", "yes") == 0.0


def test_a_letter_must_be_one_of_the_options() -> None:
    assert worth(LETTER, "B", "B", choices=("x", "y")) == 1.0
    assert worth(LETTER, "C", "C", choices=("x", "y")) == 0.0


def test_the_mean_is_in_the_tally_by_group() -> None:
    items = [Item("all", ("yes",), given, group=group) for given, group in GIVEN]
    tally = EXACT.tally(items, np.array(EXACT.worths(items)))
    assert tally.counts.tolist() == [[2.0, 2.0], [0.0, 1.0]]
    assert tally.figures(tally.counts.sum(axis=0)).tolist() == pytest.approx([2 / 3])


GIVEN = [("yes", "a"), ("no", "b"), ("yes", "a")]


def test_the_commonest_answer_counts_once_a_question() -> None:
    items = [
        Item("all", ("red", "red", "red"), ""),
        Item("all", ("blue",), ""),
        Item("all", ("blue",), ""),
    ]
    assert commonest(items) == "blue"
