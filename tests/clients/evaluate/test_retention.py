"""The interval of a ratio of two shares of the same questions."""

import random

import pytest
from scipy.stats import binomtest

from skipserve_client.evaluate.retention import accuracy, are_different, retention

pytestmark = pytest.mark.fast


def test_equal_answers_keep_everything() -> None:
    right = [True, False] * 50
    kept = retention(right, right)
    assert (kept.value, kept.low, kept.high) == pytest.approx((1.0, 1.0, 1.0))


def test_beside_a_perfect_model_it_is_nearly_the_share_itself() -> None:
    right = [True] * 70 + [False] * 930
    kept, share = retention(right, [True] * 1000), accuracy(right)
    assert kept.value == share.value
    assert kept.low == pytest.approx(share.low, abs=0.001)
    assert kept.high == pytest.approx(share.high, abs=0.001)


def test_nothing_kept_has_an_interval() -> None:
    kept = retention([False] * 300, [True] * 300)
    assert (kept.value, kept.low) == (0.0, 0.0)
    assert 0.005 < kept.high < 0.02


def test_it_is_that_of_a_bootstrap_over_questions() -> None:
    draw = random.Random(3)
    pairs = [(draw.random() < 0.7, draw.random() < 0.9) for _ in range(500)]
    pairs += [(False, False)] * 50 + [(True, True)] * 100
    kept = retention([a for a, _ in pairs], [b for _, b in pairs])
    ratios = []
    for _ in range(2000):
        some = draw.choices(pairs, k=len(pairs))
        ratios.append(sum(a for a, _ in some) / sum(b for _, b in some))
    ratios.sort()
    assert kept.low == pytest.approx(ratios[50], abs=0.01)
    assert kept.high == pytest.approx(ratios[-51], abs=0.01)


def test_pairing_narrows_it() -> None:
    reference = [True] * 600 + [False] * 400
    likewise = [True] * 500 + [False] * 500  # loses some of the same answers
    otherwise = [False] * 250 + [True] * 500 + [False] * 250
    near, far = retention(likewise, reference), retention(otherwise, reference)
    assert near.value == far.value
    assert near.high - near.low < far.high - far.low


@pytest.mark.parametrize(
    ("right", "reference"), [([True], [False]), ([True], [True, True])], ids=["none", "others"]
)
def test_a_reference_that_cannot_be_one_is_refused(
    right: list[bool], reference: list[bool]
) -> None:
    with pytest.raises(ValueError, match="as many questions as the reference's"):
        retention(right, reference)


def test_a_difference_is_told_by_the_questions_that_differ() -> None:
    same = [True] * 90
    assert are_different(same, same) == 1.0
    assert are_different([*same, *[True] * 10], [*same, *[False] * 10]) < 0.01
    assert are_different([*same, True, False], [*same, False, True]) == 1.0


def test_it_is_written_as_the_tables_write_it() -> None:
    assert str(accuracy([True] * 50 + [False] * 50)) == "50.0 % (40.4-59.6)"


@pytest.mark.parametrize(("right", "n"), [(0, 30), (1, 7), (300, 1004), (1004, 1004)])
def test_the_interval_of_a_share_is_scipys(right: int, n: int) -> None:
    found = accuracy([True] * right + [False] * (n - right))
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_answers_that_are_right_in_part_have_an_interval() -> None:
    """It holds that of a bootstrap over questions, and is not much wider."""
    draw = random.Random(3)
    pairs = [
        (draw.choice((0, 0.3, 0.6, 0.9, 1)), draw.choice((0.6, 0.9, 1, 1))) for _ in range(600)
    ]
    kept = retention([a for a, _ in pairs], [b for _, b in pairs])
    ratios = []
    for _ in range(2000):
        some = draw.choices(pairs, k=len(pairs))
        ratios.append(sum(a for a, _ in some) / sum(b for _, b in some))
    ratios.sort()
    assert kept.low < ratios[50] < kept.value < ratios[-51] < kept.high
    assert kept.high - kept.low < 1.6 * (ratios[-51] - ratios[50])


def test_answers_that_are_all_alike_have_no_correlation() -> None:
    kept = retention([0.3] * 50, [0.6] * 50)
    assert kept.value == pytest.approx(0.5)
    assert 0 < kept.low < 0.5 < kept.high


def test_a_difference_in_part_is_a_difference() -> None:
    assert are_different([0.9] * 10, [0.6] * 10) < 0.01
    assert are_different([0.9, 0.6], [0.6, 0.9]) == 1.0
