"""POPE's figures, worked out by hand."""

import numpy as np
import pytest

from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.yes_no import PopeMetric, said

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("No", "no"),
        ("no, there is", "no"),
        ("There is not one", "no"),
        ("Yes. There is no dog", "yes"),  # the first sentence alone
        ("NO", "yes"),  # as published: only these spellings
        ("nothing", "yes"),
        ("", "yes"),
    ],
)
def test_what_is_read_in_an_answer(answer: str, read: str) -> None:
    assert said(answer) == read


def items(kind: str, pairs: str) -> list[Item]:
    """Return answers, each as two letters: what is right and what was given."""
    words = {"y": "yes", "n": "no"}
    return [Item(kind, (words[pair[0]],), words[pair[1]]) for pair in pairs.split()]


# random: 2 true yes, 1 false yes, 2 true no, 1 false no. popular: 1, 0, 2, 1.
ANSWERS = items("random", "yy yy ny nn nn yn") + items("popular", "yy nn nn yn")


def test_figures_are_the_mean_of_the_categories() -> None:
    metric = PopeMetric()
    tally = metric.tally(ANSWERS, np.array(metric.worths(ANSWERS)))
    found = tally.figures(tally.counts.sum(axis=0))
    expected = [
        2 / 3,
        (4 / 6 + 3 / 4) / 2,
        (2 / 3 + 1) / 2,
        (2 / 3 + 1 / 2) / 2,
        (1 / 2 + 1 / 4) / 2,
    ]
    assert found.tolist() == pytest.approx(expected)
    assert np.bincount(tally.strata).tolist() == [4, 6]


def test_each_category_has_its_own() -> None:
    found = PopeMetric().details(ANSWERS)["popular"]
    assert found == {
        "F1": pytest.approx(2 / 3),
        "accuracy": 0.75,
        "precision": 1.0,
        "recall": 0.5,
        "yes ratio": 0.25,
        "n": 4,
    }


def test_never_yes_gives_no_precision() -> None:
    found = PopeMetric().details(items("random", "yn nn"))["random"]
    assert (found["precision"], found["F1"], found["accuracy"]) == (0.0, 0.0, 0.5)
