"""The interval of a ratio of two shares of the same questions."""

import random

import pytest

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
