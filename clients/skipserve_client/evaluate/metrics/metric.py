"""What every metric offers, and the sums that its figures are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve_client.evaluate.metrics.item import Item, groups_of

Array = NDArray[np.float64]
Indexes = NDArray[np.int64]

SHARE, POINTS = "share", "points"


@dataclass(frozen=True)
class Measure:
    """A figure that a metric gives.

    Attributes:
        name: as its authors call it.
        unit: "share", from 0 to 1, or "points" of a scale of its own.
    """

    name: str
    unit: str = SHARE


@dataclass(frozen=True)
class Tally:
    """What a metric counts of each unit, such that its figures follow from the sums over units.

    A unit is what could have been drawn otherwise: a question, or questions that belong together.
    So a bootstrap draws units, sums their counts anew and asks for the figures again.

    Attributes:
        counts: [units, C].
        strata: which units are drawn among themselves, [units]; all of one number where all are.
        figures: from sums of counts, [..., C], to the metric's measures, [..., M].
    """

    counts: Array
    strata: Indexes
    figures: Callable[[Array], Array]


class Metric(Protocol):
    """A way to score answers."""

    @property
    def name(self) -> str:
        """What records and files call it."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The figures that it gives, the one that it is known for first."""

    @property
    def tells_right(self) -> bool:
        """Whether an answer that is worth half or more is called right."""

    def worths(self, items: Sequence[Item]) -> Sequence[float]:
        """Return what each answer is worth, from 0 to 1."""

    def tally(self, items: Sequence[Item], worths: Array) -> Tally:
        """Count what the figures are made of, a unit a group of items, in their order."""

    def details(self, items: Sequence[Item]) -> Mapping[str, Mapping[str, float]]:
        """Return further figures by category, where the metric's authors give some."""


def by_group(counts: Array, items: Sequence[Item]) -> Array:
    """Sum counts of items, [items, C], up over their groups: [groups, C]."""
    groups = groups_of(items)
    numbers = np.zeros(len(items), dtype=np.int64)
    for number, places in enumerate(groups.values()):
        numbers[places] = number
    sums = np.zeros((len(groups), counts.shape[1]))
    np.add.at(sums, numbers, counts)
    return sums


def mean_tally(items: Sequence[Item], worths: Array, figures: Callable[[Array], Array]) -> Tally:
    """Count questions and what they are worth together, for figures that follow from the mean."""
    counts = by_group(np.array([worths, np.ones(len(worths))]).T, items)
    return Tally(counts, one_stratum(counts), figures)


def share(part: Array, whole: Array) -> Array:
    """Return part / whole, and 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def one_stratum(counts: Array) -> Indexes:
    """Return the strata of units that are all drawn among each other."""
    return np.zeros(len(counts), dtype=np.int64)
