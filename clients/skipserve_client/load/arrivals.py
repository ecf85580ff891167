"""When requests arrive at a server whose clients do not wait for each other."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from skipserve_client.command_group import CommandError

_NAMED = {"uniform": 0.0, "poisson": 1.0}
_GAMMA = "gamma:"


@dataclass(frozen=True)
class Spacing:
    """How evenly requests are spread.

    Attributes:
        variation: the standard deviation of the gaps over their mean: 0 are even gaps, 1 those of
            a Poisson process; above, requests come in bursts.
    """

    variation: float

    def times(self, rate: float, seed: str) -> Iterator[float]:
        """Yield when requests arrive, in seconds, the first at 0; the gaps are gamma-distributed.

        Args:
            rate: requests a second, in the mean.
            seed: of the gaps.
        """
        drawn = random.Random(seed)
        squared = self.variation**2
        time = 0.0
        while True:
            yield time
            time += drawn.gammavariate(1 / squared, squared / rate) if squared else 1 / rate


def read_spacing(text: str) -> Spacing:
    """Read `--arrivals`.

    Raises:
        CommandError: it is neither uniform, poisson nor gamma:CV.
    """
    if text in _NAMED:
        return Spacing(_NAMED[text])
    try:
        variation = float(text.removeprefix(_GAMMA)) if text.startswith(_GAMMA) else math.nan
    except ValueError:
        variation = math.nan
    # Beyond, gaps are too small or too large to be counted.
    if not 0.01 <= variation <= 100:
        raise CommandError(
            f"--arrivals {text}: give uniform, poisson or gamma:CV, where CV, from 0.01 to 100, is "
            "the standard deviation of the gaps over their mean"
        )
    return Spacing(variation)
