"""Policies beside full: what is lost, won and agreed on, with intervals that pairing narrows."""

import numpy as np
import pytest

from skipserve_client.evaluate.figures import Comparison, Figures, figures_of
from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.means import EXACT, VQA
from skipserve_client.evaluate.metrics.registry import METRICS
from skipserve_client.evaluate.scoring import GradedAnswer, score

pytestmark = pytest.mark.fast


def answers(given: str) -> list[Item]:
    """Return answers to as many questions whose right answer is y."""
    return [Item("odd" if place % 2 else "even", ("y",), it) for place, it in enumerate(given)]


def beside_full(full: str, policy: str) -> tuple[Figures, Comparison]:
    found = figures_of({"full": answers(full), "half": answers(policy)}, EXACT)
    comparison = found["half"].comparison
    assert found["full"].comparison is None
    assert comparison is not None
    return found["half"], comparison


def test_flips_are_counted() -> None:
    # one lost, two won, one other wrong answer, the rest as full's
    figures, comparison = beside_full("yyyyyynnnn", "yyyyynyyan")
    assert (comparison.right_to_wrong, comparison.wrong_to_right, comparison.changed) == (1, 2, 4)
    assert comparison.agreement.value == 0.6
    assert comparison.retention is not None
    assert comparison.retention.value == pytest.approx(0.7 / 0.6)
    assert comparison.difference.value == pytest.approx(0.1)
    assert figures.measured[0].value == 0.7
    assert figures.measured[0].measure.name == "exact match"


def test_equal_answers_leave_nothing_open() -> None:
    _, comparison = beside_full("yynyn" * 20, "YYnYn" * 20)
    assert (comparison.difference.low, comparison.difference.high) == (0.0, 0.0)
    assert comparison.retention is not None
    assert (comparison.retention.low, comparison.retention.high) == (1.0, 1.0)
    assert comparison.changed == 0


def test_the_interval_of_a_difference_is_that_of_paired_questions() -> None:
    rng = np.random.default_rng(3)
    full = "".join(rng.choice(["y", "n"], 400, p=[0.7, 0.3]))
    half = "".join(
        it if keep else "n" for it, keep in zip(full, rng.random(400) > 0.1, strict=True)
    )
    _, comparison = beside_full(full, half)
    gaps = np.array([(b == "y") - (a == "y") for a, b in zip(full, half, strict=True)], dtype=float)
    spread = 1.96 * gaps.std() / 20
    assert comparison.difference.high - comparison.difference.low == pytest.approx(
        2 * spread, rel=0.15
    )


def test_nothing_right_under_full_leaves_no_retention() -> None:
    _, comparison = beside_full("nn", "yn")
    assert comparison.retention is None


def test_exact_matches_are_scored_as_ever() -> None:
    items = answers("yynny")
    found = figures_of({"full": items}, EXACT)["full"]
    expected = score(GradedAnswer.of(it.type, it.expected, it.given) for it in items)
    assert found.score == expected
    assert (found.measured[0].low, found.measured[0].high) == (expected.low, expected.high)


def test_other_metrics_have_means_by_type_and_what_a_constant_answer_gets() -> None:
    items = [
        Item("number", ("2",) * 10, "two", part="small"),
        Item("number", ("2",) * 3 + ("3",) * 7, "2", part="small"),
        Item("yes/no", ("yes",) * 10, "no"),
    ]
    found = figures_of({"full": items}, VQA)["full"].score
    assert found.accuracy == pytest.approx((1.0 + 0.9) / 3)
    assert found.n == 3
    assert found.types["number"].accuracy == pytest.approx(0.95)
    assert found.types["number"].majority == pytest.approx(0.95)
    assert found.types["number, small"].n == 2
    assert found.types["yes/no"].majority == 1.0
    assert found.low <= found.accuracy <= found.high


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_scores_a_policy_beside_full(name: str) -> None:
    kind = "count" if name == "mme" else "all"
    items = [
        Item(kind, ("A", "yes", "red bus"), given, group=None, choices=("x", "z"))
        for given in ("A", "B", "yes", "no", "red bus")
    ]
    found = figures_of({"full": items, "half": items[::-1]}, METRICS[name])
    assert len(found["half"].measured) == len(METRICS[name].measures)
    for it in found["half"].measured:
        assert it.low <= it.high
