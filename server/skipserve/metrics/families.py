"""How our metrics are named, labelled and explained: a prefix, base units, and the model first."""

from collections.abc import Collection
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from skipserve_policies.catalog import INLINE_NAME

_PREFIX = "skipserve_"
Labels = tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """What the page about the metrics says of one.

    Attributes:
        name: as Prometheus knows it.
        kind: counter, gauge or histogram.
        labels: besides the model.
        unit: of its value; for a histogram, of what is observed.
        meaning: what it counts or shows.
        advice: what to look at when it moves.
    """

    name: str
    kind: str
    labels: Labels
    unit: str
    meaning: str
    advice: str


@dataclass(frozen=True)
class Families:
    """Makes the metric families of one model.

    Each is made of a name, what it means, and what to look at when it moves.

    Attributes:
        registry: where they are registered.
        model: the value of their first label.
        policy_names: what the label `skip_policy` may say besides "inline".
        made: what was made, for the page about the metrics.
    """

    registry: CollectorRegistry
    model: str
    policy_names: Collection[str]
    made: list[Metric] = field(default_factory=list)

    def policy_labels(self, policy_name: str) -> tuple[str, str]:
        """Return the labels `model` and `skip_policy`."""
        return self.model, policy_name if policy_name in self.policy_names else INLINE_NAME

    def counter(
        self, name: str, meaning: str, advice: str, *, unit: str, labels: Labels = ()
    ) -> Counter:
        """Return a counter with the label `model` and others."""
        name = f"{_PREFIX}{name}_total"
        self.made.append(Metric(name, "counter", labels, unit, meaning, advice))
        return Counter(name, meaning, ("model", *labels), registry=self.registry)

    def gauge(
        self, name: str, meaning: str, advice: str, *, unit: str, labels: Labels = ()
    ) -> Gauge:
        """Return a gauge with the label `model` and others."""
        name = _PREFIX + name
        self.made.append(Metric(name, "gauge", labels, unit, meaning, advice))
        return Gauge(name, meaning, ("model", *labels), registry=self.registry)

    def histogram(
        self,
        name: str,
        meaning: str,
        advice: str,
        buckets: tuple[float, ...],
        *,
        unit: str,
        labels: Labels = (),
    ) -> Histogram:
        """Return a histogram with the label `model` and others."""
        name = _PREFIX + name
        self.made.append(Metric(name, "histogram", labels, unit, meaning, advice))
        return Histogram(name, meaning, ("model", *labels), buckets=buckets, registry=self.registry)
