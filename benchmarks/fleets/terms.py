"""What a modelled replica takes for a request, as measured on a real engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Warmth(StrEnum):
    """What of a request's picture a replica has when it starts the request."""

    NOTHING = "nothing"
    FEATURES = "features"
    PAGES = "pages"


@dataclass(frozen=True)
class Terms:
    """A replica in numbers.

    Attributes:
        seconds: of a request that runs alone, by policy and by what is warm.
        speeds: how much faster `index + 1` requests get done together than one after another;
            beyond the last, as the last.
        num_features: pictures whose features are kept.
        num_pages: pictures whose keys and values are kept, each under one policy.
        source: where the figures are from.
    """

    seconds: Mapping[str, Mapping[Warmth, float]]
    speeds: Sequence[float]
    num_features: int
    num_pages: int
    source: str

    def __post_init__(self) -> None:
        """Refuse terms with which nothing would ever end."""
        values = [*self.speeds, *(it for by in self.seconds.values() for it in by.values())]
        if not self.speeds or not self.seconds or min(values) <= 0:
            raise ValueError("speeds and seconds must be there, and above 0")

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies."""
        return tuple(self.seconds)

    def speed(self, num_running: int) -> float:
        """Return how fast so many get done together, of one alone."""
        return self.speeds[min(num_running, len(self.speeds)) - 1]

    def as_json(self) -> dict[str, Any]:
        """Return the form that is written."""
        return {
            "seconds": {name: dict(by) for name, by in self.seconds.items()},
            "speeds": list(self.speeds),
            "num_features": self.num_features,
            "num_pages": self.num_pages,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Terms":
        """Read what `as_json` returned."""
        seconds = {
            name: {Warmth(key): float(value) for key, value in by.items()}
            for name, by in written["seconds"].items()
        }
        kept = {name: written[name] for name in ("num_features", "num_pages", "source")}
        return cls(seconds=seconds, speeds=tuple(written["speeds"]), **kept)
