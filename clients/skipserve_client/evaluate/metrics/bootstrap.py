"""The paired bootstrap: figures of resampled units, the same units for every policy."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skipserve_client.evaluate.metrics.metric import Array, Indexes

NUM_RESAMPLES = 2000
LEVEL = 0.95
_SEED = 20
_CELLS = 1 << 23  # of the numbers that are drawn at a time


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of what resampling gives."""

    low: float
    high: float

    @classmethod
    def of(cls, figures: Array) -> "Interval":
        """Take the interval of one figure over resamples, [R]."""
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(figures, (tail, 1 - tail))
        return cls(float(low), float(high))


def resampled_sums(counts: Array, strata: Indexes, num: int = NUM_RESAMPLES) -> Array:
    """Draw units with replacement, each stratum as many as it has, and sum up what they count.

    The draw depends on the number of units in each stratum alone: counts of several policies side
    by side are resampled alike, and so are those that are asked for apart.

    Args:
        counts: [units, C].
        strata: [units].
        num: how often.

    Returns:
        [num, C]
    """
    sums = np.zeros((num, counts.shape[1]))
    for stratum in np.unique(strata):
        members = counts[strata == stratum]
        generator = np.random.default_rng([_SEED, int(stratum)])
        for first, drawn in _draws(len(members), num, generator):
            sums[first : first + len(drawn)] += drawn @ members
    return sums


def _draws(num_units: int, num: int, generator: np.random.Generator) -> Iterator[tuple[int, Array]]:
    """Yield how often each unit is drawn, some resamples at a time: [resamples, units]."""
    at_a_time = max(1, _CELLS // num_units)
    for first in range(0, num, at_a_time):
        rows = min(at_a_time, num - first)
        places = generator.integers(num_units, size=(rows, num_units))
        places += num_units * np.arange(rows)[:, None]
        times = np.bincount(places.ravel(), minlength=rows * num_units)
        yield first, times.reshape(rows, num_units).astype(np.float64)
