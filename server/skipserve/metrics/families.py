"""How our metrics are named and labelled: a prefix, base units, and the model first."""

from collections.abc import Collection
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from skipserve_policies.catalog import INLINE_NAME


@dataclass(frozen=True)
class Families:
    """Makes the metric families of one model.

    Attributes:
        registry: where they are registered.
        model: the value of their first label.
        policy_names: what the label `skip_policy` may say besides "inline".
    """

    registry: CollectorRegistry
    model: str
    policy_names: Collection[str]

    def policy_labels(self, policy_name: str) -> tuple[str, str]:
        """Return the labels `model` and `skip_policy`."""
        return self.model, policy_name if policy_name in self.policy_names else INLINE_NAME

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """Return a counter with the label `model` and others."""
        return Counter(
            f"skipserve_{name}_total", meaning, ("model", *labels), registry=self.registry
        )

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """Return a gauge with the label `model` and others."""
        return Gauge(f"skipserve_{name}", meaning, ("model", *labels), registry=self.registry)

    def histogram(
        self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        """Return a histogram with the label `model` and others."""
        return Histogram(
            f"skipserve_{name}",
            meaning,
            ("model", *labels),
            buckets=buckets,
            registry=self.registry,
        )
