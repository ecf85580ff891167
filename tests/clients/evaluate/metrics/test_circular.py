"""MMBench's circular accuracy, worked out by hand."""

import numpy as np
import pytest

from skipserve_client.evaluate.metrics.circular import CircularMetric
from skipserve_client.evaluate.metrics.item import Item

pytestmark = pytest.mark.fast

CHOICES = ("red", "blue")


def item(group: str, right: str, given: str, kind: str = "colour") -> Item:
    return Item(kind, (right,), given, group=group, choices=CHOICES)


ITEMS = [
    item("1", "A", "A"),
    item("1", "B", "B"),
    item("2", "A", "A"),
    item("2", "B", "A"),  # always A: right in one rotation, which is not enough
    item("3", "B", "B", "shape"),
]


def test_all_rotations_must_be_right() -> None:
    metric = CircularMetric()
    tally = metric.tally(ITEMS, np.array(metric.worths(ITEMS)))
    assert tally.figures(tally.counts.sum(axis=0)).tolist() == pytest.approx([2 / 3, 4 / 5])


def test_categories_are_told_apart() -> None:
    assert CircularMetric().details(ITEMS) == {
        "colour": {"circular accuracy": 0.5, "n": 2},
        "shape": {"circular accuracy": 1.0, "n": 1},
    }
