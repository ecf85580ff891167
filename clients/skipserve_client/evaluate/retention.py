"""How much of one model's accuracy another keeps on the same questions, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest, norm

_Z = float(norm.ppf(0.975))  # of a 95 % interval


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}-{100 * self.high:.1f})"


def accuracy(right: Sequence[float]) -> Interval:
    """Return the mean of how right answers are, with Wilson's interval.

    It is that of shares; where answers are right in part it is wider than need be.
    """
    count, mean = len(right), sum(right) / len(right)
    centre = mean + _Z**2 / (2 * count)
    spread = _Z * math.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
    whole = 1 + _Z**2 / count
    low, high = max(0.0, (centre - spread) / whole), min(1.0, (centre + spread) / whole)
    return Interval(mean, 0.0 if mean == 0 else low, 1.0 if mean == 1 else high)


def retention(right: Sequence[float], reference: Sequence[float]) -> Interval:
    """Return accuracy by the reference's accuracy on the same questions, in the same order.

    The interval is that of the ratio of two paired shares from the Wilson interval of each and
    their correlation (MOVER; A. Donner and G. Zou, Statistical Methods in Medical Research 21,
    2012). It holds where nothing is right, too. The questions are taken to be independent.

    Raises:
        ValueError: Of the reference nothing is right, or it has other questions.
    """
    if len(right) != len(reference) or not any(reference):
        raise ValueError(
            f"Expected as many questions as the reference's {len(reference)}, of which some are "
            f"right, got {len(right)} and {sum(reference)}."
        )
    upper, lower = accuracy(right), accuracy(reference)
    together = _correlation(right, reference)
    return Interval(
        upper.value / lower.value,
        _limit(upper, lower, together, upper.low, lower.high, -1),
        _limit(upper, lower, together, upper.high, lower.low, 1),
    )


def _limit(
    upper: Interval, lower: Interval, together: float, top: float, bottom: float, side: int
) -> float:
    """Return a limit of the ratio, from a limit of each of its parts."""
    shared = upper.value * lower.value - together * (upper.value - top) * (bottom - lower.value)
    product = top * bottom * (2 * upper.value - top) * (2 * lower.value - bottom)
    root = math.sqrt(max(0.0, shared**2 - product))
    return (shared + side * root) / (bottom * (2 * lower.value - bottom))


def _correlation(right: Sequence[float], reference: Sequence[float]) -> float:
    """Return the correlation of two series; 0 where one of them is constant."""
    count = len(right)
    one, two = sum(right) / count, sum(reference) / count
    both = sum(a * b for a, b in zip(right, reference, strict=True)) / count
    spread = math.sqrt(_variance(right, one) * _variance(reference, two))
    return (both - one * two) / spread if spread else 0.0


def _variance(values: Sequence[float], mean: float) -> float:
    if min(values) == max(values):
        return 0.0
    return sum(value * value for value in values) / len(values) - mean * mean


def are_different(one: Sequence[float], two: Sequence[float]) -> float:
    """Return McNemar's exact p value: how likely so unequal losses are between equal models.

    Where answers are right in part, it is that of the sign test.
    """
    only_one = sum(a > b for a, b in zip(one, two, strict=True))
    only_two = sum(b > a for a, b in zip(one, two, strict=True))
    if not only_one + only_two:
        return 1.0
    return float(binomtest(only_one, only_one + only_two).pvalue)
