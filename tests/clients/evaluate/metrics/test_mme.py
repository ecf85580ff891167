"""MME's scores, worked out by hand."""

import numpy as np
import pytest

from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.mme import MmeMetric, said

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("answer", "read"),
    [("Yes", "yes"), ("no.", "no"), (" Yes, it", "yes"), ("not", "no"), ("It is yes", None)],
)
def test_what_is_read_in_an_answer(answer: str, read: str | None) -> None:
    assert said(answer) == read


def picture(subtask: str, number: int, first: str, second: str) -> list[Item]:
    group = f"{subtask}/{number}"
    return [
        Item(subtask, ("yes",), first, group=group),
        Item(subtask, ("no",), second, group=group),
    ]


ITEMS = [
    *picture("existence", 1, "yes", "no"),
    *picture("existence", 2, "yes", "yes"),
    *picture("count", 1, "Yes.", "No."),
    *picture("code_reasoning", 1, "maybe", "no"),
]


def test_perception_and_cognition_are_apart() -> None:
    metric = MmeMetric()
    tally = metric.tally(ITEMS, np.array(metric.worths(ITEMS)))
    found = tally.figures(tally.counts.sum(axis=0)).tolist()
    # existence: 3 of 4 and 1 of 2; count: all; code_reasoning: 1 of 2 and none.
    assert found == pytest.approx([125.0 + 200.0, 50.0, 6 / 8])
    assert len(tally.counts) == 4


def test_each_subtask_has_its_score() -> None:
    found = MmeMetric().details(ITEMS)
    assert list(found) == ["existence", "count", "code_reasoning"]
    assert found["existence"] == {"accuracy": 0.75, "accuracy+": 0.5, "score": 125.0, "n": 4}


def test_a_subtask_keeps_its_number_of_pictures_when_resampled() -> None:
    metric = MmeMetric()
    tally = metric.tally(ITEMS, np.array(metric.worths(ITEMS)))
    assert sorted(np.bincount(tally.strata)[np.unique(tally.strata)].tolist()) == [1, 1, 2]
