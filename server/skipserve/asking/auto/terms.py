"""How the operator lets policies be chosen, and what the choice sees of the server."""

from dataclasses import dataclass, field
from enum import StrEnum

from skipserve.asking.auto.choice import PressureBand


class Unmet(StrEnum):
    """What is done where no policy meets what a request asks for.

    ERROR: the request is refused.
    FULL: it runs under the model's own default: `full`, unless its folder says otherwise.
    NEAREST: it runs under the quickest policy that keeps the quality, or under the best there is.
    """

    ERROR = "error"
    FULL = "full"
    NEAREST = "nearest"


@dataclass(frozen=True)
class AutoTerms:
    """How policies are chosen for requests that leave it to the server.

    Attributes:
        policies: names of those that may be chosen; empty for all that were measured, but for
            those that were added at run time.
        quality: the share of what the full model reaches that is kept where a request does not say.
        min_quality: the same under pressure, or where a latency asks for it; no request gets less.
        unmet: what is done where nothing meets a request.
        pressure: when there is pressure.
        reuses_pages: whether pages outlive the request that computed them.
    """

    policies: tuple[str, ...] = ()
    quality: float = 0.98
    min_quality: float = 0.95
    unmet: Unmet = Unmet.ERROR
    pressure: PressureBand = field(default_factory=lambda: PressureBand(high=1.0, low=0.25))
    reuses_pages: bool = True


@dataclass(frozen=True)
class Surroundings:
    """How the server stands.

    Attributes:
        weights_digest: sha256 of the weights that run; None until they are loaded.
        num_cache_rows: rows that all pages have.
        wait_seconds: how long a request that comes now will wait for its first step.
    """

    weights_digest: str | None = None
    num_cache_rows: int = 0
    wait_seconds: float = 0.0
