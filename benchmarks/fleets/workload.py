"""Who asks what and when: Zipf's pictures, mixed policies, arrivals in bursts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Workload:
    """Requests in the order in which they come.

    Attributes:
        pictures: which one each is about.
        policies: the place of each one's policy among `names`.
        times: when each comes, in seconds; all 0 where clients ask one after another.
        names: of the policies.
    """

    pictures: NDArray[np.int64]
    policies: NDArray[np.int64]
    times: NDArray[np.float64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """How many."""
        return len(self.pictures)


def draw(
    count: int,
    *,
    num_pictures: int,
    exponent: float,
    mix: Mapping[str, float],
    rate: float | None,
    burstiness: float,
    seed: int,
) -> Workload:
    """Draw a workload.

    Args:
        count: how many requests.
        num_pictures: that there are.
        exponent: of Zipf's law: the k-th picture is asked about as often as `k ** -exponent` says.
        mix: the share of each policy.
        rate: requests a second; None where clients ask one after another.
        burstiness: the squared coefficient of variation of the gaps: 1 is Poisson's.
        seed: of what is drawn.
    """
    generator = np.random.default_rng(seed)
    weights = np.arange(1, num_pictures + 1, dtype=np.float64) ** -exponent
    edges = np.cumsum(weights / weights.sum())
    pictures = np.searchsorted(edges, generator.random(count)).astype(np.int64)
    shares = np.array(list(mix.values()), np.float64)
    policies = generator.choice(len(shares), count, p=shares / shares.sum()).astype(np.int64)
    times = np.zeros(count)
    if rate is not None:
        # Gamma's gaps, of mean 1 / rate and a squared coefficient of variation of the burstiness.
        gaps = generator.gamma(1 / burstiness, burstiness / rate, count)
        times = np.cumsum(gaps)
    return Workload(np.minimum(pictures, num_pictures - 1), policies, times, tuple(mix))
