"""When requests arrive: exactly where gaps are even, else by their mean and variation."""

from itertools import islice, pairwise
from statistics import fmean, pstdev

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.load.arrivals import Spacing, read_spacing

pytestmark = pytest.mark.fast


def gaps(spacing: Spacing, rate: float, count: int = 40_000, seed: str = "1") -> list[float]:
    return [after - before for before, after in pairwise(islice(spacing.times(rate, seed), count))]


def test_uniform_gaps_are_even() -> None:
    assert list(islice(read_spacing("uniform").times(4.0, "1"), 4)) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("text", "variation"), [("poisson", 1.0), ("gamma:0.5", 0.5), ("gamma:1", 1.0), ("gamma:3", 3)]
)
def test_gaps_have_the_mean_and_the_variation_that_are_asked_for(
    text: str, variation: float
) -> None:
    found = gaps(read_spacing(text), rate=50.0)
    # Four standard errors of the mean of 40,000.
    assert fmean(found) == pytest.approx(1 / 50, rel=4 * variation / 200)
    assert pstdev(found) / fmean(found) == pytest.approx(variation, rel=0.06)


def test_a_third_of_poisson_gaps_is_longer_than_the_mean() -> None:
    found = gaps(read_spacing("poisson"), rate=2.0)
    assert sum(gap > 0.5 for gap in found) / len(found) == pytest.approx(0.3679, abs=0.01)


def test_the_same_seed_gives_the_same_times() -> None:
    spacing = read_spacing("poisson")
    assert gaps(spacing, 1.0, 9, "1") == gaps(spacing, 1.0, 9, "1") != gaps(spacing, 1.0, 9, "2")


@pytest.mark.parametrize("text", ["", "even", "gamma", "gamma:", "gamma:0", "gamma:nan", "gamma:x"])
def test_other_kinds_are_refused(text: str) -> None:
    with pytest.raises(CommandError, match="give uniform, poisson or gamma:CV"):
        read_spacing(text)
