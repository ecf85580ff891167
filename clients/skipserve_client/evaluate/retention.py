"""How much of one model's accuracy another keeps on the same questions, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}-{100 * self.high:.1f})"


def accuracy(right: Sequence[bool]) -> Interval:
    """Return the share of right answers, with Wilson's interval."""
    found = binomtest(sum(right), len(right)).proportion_ci(0.95, method="wilson")
    return Interval(sum(right) / len(right), float(found.low), float(found.high))


def retention(right: Sequence[bool], reference: Sequence[bool]) -> Interval:
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


def _correlation(right: Sequence[bool], reference: Sequence[bool]) -> float:
    """Return the correlation of two series of truths; 0 where one of them is constant."""
    count = len(right)
    one, two = sum(right) / count, sum(reference) / count
    both = sum(a and b for a, b in zip(right, reference, strict=True)) / count
    spread = math.sqrt(one * (1 - one) * two * (1 - two))
    return (both - one * two) / spread if spread else 0.0


def are_different(one: Sequence[bool], two: Sequence[bool]) -> float:
    """Return McNemar's exact p value: how likely so unequal losses are between equal models."""
    only_one = sum(a and not b for a, b in zip(one, two, strict=True))
    only_two = sum(b and not a for a, b in zip(one, two, strict=True))
    if not only_one + only_two:
        return 1.0
    return float(binomtest(only_one, only_one + only_two).pvalue)
