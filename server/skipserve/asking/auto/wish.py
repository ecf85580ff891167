"""What a request asks of the policy that the server is to choose for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AutoWish:
    """What the chosen policy must keep to; what is None, the operator's settings say.

    Attributes:
        min_quality: the share of what the full model reaches that must be kept.
        max_latency_ms: the time from the request to its last token, in milliseconds.
    """

    min_quality: float | None = None
    max_latency_ms: float | None = None

    @property
    def max_seconds(self) -> float | None:
        """The time from the request to its last token; None for any."""
        return None if self.max_latency_ms is None else self.max_latency_ms / 1000
