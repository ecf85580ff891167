"""CIDEr-D against figures of pycocoevalcap 1.2, and against what follows from its definition."""

import math

import numpy as np
import pytest

from skipserve_client.evaluate.metrics.captions import CiderMetric
from skipserve_client.evaluate.metrics.item import Item

pytestmark = pytest.mark.fast

REFERENCES = [
    (
        "A man riding a wave on top of a surfboard.",
        "A surfer rides a big wave.",
        "A man is surfing in the ocean.",
    ),
    (
        "Two dogs play with a ball.",
        "A brown dog and a white dog are playing with a ball.",
        "Two dogs, one ball.",
    ),
    ("A red double-decker bus on the street.", "A bus that is red.", "The bus isn't moving."),
]
GIVEN = ["A man surfing a wave on a surfboard.", "Two dogs play with a ball.", "a green train"]
# What `Cider().compute_score` of pycocoevalcap gives for them, tokenized by its PTBTokenizer.
PUBLISHED = [1.71339631, 4.41821151, 0.0]


def items(*given: str) -> list[Item]:
    pairs = zip(REFERENCES, given, strict=True)
    return [Item("all", references, text) for references, text in pairs]


def test_the_authors_program_gives_the_same() -> None:
    worths = CiderMetric().worths(items(*GIVEN))
    assert [10 * worth for worth in worths] == pytest.approx(PUBLISHED, abs=1e-7)


def test_the_mean_is_reported_times_a_hundred() -> None:
    metric = CiderMetric()
    tally = metric.tally(items(*GIVEN), np.array(metric.worths(items(*GIVEN))))
    found = tally.figures(tally.counts.sum(axis=0))
    assert found.tolist() == pytest.approx([100 * sum(PUBLISHED) / 3], abs=1e-5)


def test_the_reference_itself_is_worth_all() -> None:
    texts = ("a red bus stops", "two dogs play ball")
    whole = [Item("all", (text,), text) for text in texts]
    assert CiderMetric().worths(whole) == pytest.approx([1.0, 1.0])


def test_other_lengths_cost_as_published() -> None:
    # Three pairs of words instead of one: a penalty of exp(-2² / (2 * 6²)), beside which the one
    # word and the pair that are shared count by their cosines, and longer n-grams not at all.
    asked = [Item("all", ("red bus",), "red bus stops here"), Item("all", ("a dog",), "x")]
    ones, pairs = 2 / math.sqrt(2 * 4), 1 / math.sqrt(3)
    expected = math.exp(-4 / 72) * (ones + pairs) / 4
    assert CiderMetric().worths(asked)[0] == pytest.approx(expected)
