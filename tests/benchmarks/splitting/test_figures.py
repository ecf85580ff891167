"""What follows from figures that were made by hand."""

from collections.abc import Mapping

import pytest
from splitting.figures import Figures, as_rows, compare, error_of_controls, from_record, sentence
from splitting.parts import Part, Stage

pytestmark = pytest.mark.fast


def figures(
    gflops: float, parts: Mapping[Part, float], *, picture: float = 0.0, noise: float = 0.0
) -> Figures:
    whole = {part: parts.get(part, 0.0) for part in Part}
    return Figures(gflops, picture, sum(parts.values()), noise, 100.0, whole)


FULL = figures(100, {Part.ARITHMETIC: 60, Part.ATTENTION: 20, Part.CALLS: 20})


def test_the_parts_sum_to_the_difference() -> None:
    policy = figures(50, {Part.ARITHMETIC: 30, Part.ATTENTION: 16, Part.CALLS: 19, Part.ROWS: 5})
    found = compare(policy, FULL)
    assert (found.flops, found.time) == (0.5, 0.7)
    assert found.beyond[Part.ARITHMETIC] == 0
    assert found.beyond[Part.ATTENTION] == pytest.approx(0.06)
    assert found.beyond[Part.CALLS] == pytest.approx(0.09)
    assert found.beyond[Part.ROWS] == pytest.approx(0.05)
    assert sum(found.beyond.values()) == pytest.approx(0.7 - 0.5)


def test_a_picture_at_the_whole_s_speed_is_not_to_blame() -> None:
    """It has a quarter of the FLOPs and of the time, and no policy makes it less."""
    full = figures(100, {Part.ARITHMETIC: 75, Part.PICTURE: 25}, picture=25)
    half = figures(62.5, {Part.ARITHMETIC: 37.5, Part.PICTURE: 25}, picture=25)
    assert compare(half, full).beyond == pytest.approx(dict.fromkeys(Part, 0.0))


def test_a_picture_that_is_slower_than_the_whole_takes_the_difference() -> None:
    full = figures(100, {Part.ARITHMETIC: 60, Part.PICTURE: 40}, picture=20)
    half = figures(60, {Part.ARITHMETIC: 30, Part.PICTURE: 40}, picture=20)
    found = compare(half, full)
    assert found.beyond[Part.PICTURE] == pytest.approx(found.time - found.flops)
    assert found.beyond[Part.ARITHMETIC] == pytest.approx(0.0)


def test_the_sentence_names_what_takes_the_difference() -> None:
    policy = figures(50, {Part.ARITHMETIC: 30, Part.ATTENTION: 16, Part.CALLS: 19, Part.ROWS: 5})
    assert sentence(compare(policy, FULL)) == (
        "50 % of the FLOPs take 70 % of the time, 20.0 points more than they promise: "
        "9.0 in calls, 6.0 in attention and 5.0 in gathers and puts."
    )


def test_the_sentence_says_what_goes_the_other_way() -> None:
    policy = figures(50, {Part.ARITHMETIC: 26, Part.ATTENTION: 10, Part.CALLS: 20})
    assert sentence(compare(policy, FULL)) == (
        "50 % of the FLOPs take 56 % of the time, 6.0 points more than they promise: "
        "10.0 in calls, and 4.0 the other way elsewhere."
    )


def test_a_policy_may_be_faster_than_its_flops() -> None:
    policy = figures(90, {Part.ARITHMETIC: 54, Part.ATTENTION: 0, Part.CALLS: 18})
    assert sentence(compare(policy, FULL)) == (
        "90 % of the FLOPs take 72 % of the time, 18.0 points fewer than they promise: "
        "18.0 in attention."
    )


@pytest.mark.parametrize(
    ("calls", "noise", "follows"), [(11, 0, True), (16, 7, True), (16, 5, False)]
)
def test_a_difference_within_the_noise_is_none(calls: float, noise: float, follows: bool) -> None:
    parts = {Part.ARITHMETIC: 30.0, Part.ATTENTION: 10.0, Part.CALLS: calls}
    told = sentence(compare(figures(50, parts, noise=noise), FULL))
    assert ("no difference that this run can tell" in told) is follows


def test_the_sentence_says_what_the_run_cannot_tell() -> None:
    policy = figures(50, {Part.ARITHMETIC: 30, Part.ATTENTION: 10, Part.CALLS: 15}, noise=4)
    assert sentence(compare(policy, FULL), error=0.06) == (
        "50 % of the FLOPs take 55 % of the time: "
        "no difference that this run can tell, give or take 6.0 points."
    )


def test_what_computes_the_same_is_the_control() -> None:
    same = figures(100, {Part.ARITHMETIC: 57, Part.ATTENTION: 20, Part.CALLS: 20})
    less = figures(50, {Part.ARITHMETIC: 30})
    assert error_of_controls({"full": FULL, "same": same, "less": less}) == pytest.approx(0.03)
    assert error_of_controls({"full": FULL, "less": less}) == 0


def test_figures_come_back_from_the_record() -> None:
    found = {("some/folder", stage): {"full": FULL, "half": figures(50, {})} for stage in Stage}
    rows = [row.as_json() for row in as_rows(found)]
    assert from_record({"rows": rows}) == found
