"""Makes the metrics of one served model, and hands out their series."""

from collections.abc import Collection
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import Metric as Shown

from skipserve.metrics.metric import Family, Metric, declared
from skipserve.metrics.table import SKIP_POLICY, Metrics
from skipserve_policies.catalog import INLINE_NAME
from skipserve_policies.resolve import ADDED_LABEL


class Families:
    """All metrics of the table, for one model.

    Args:
        registry: where they are registered.
        model: the value of their first label.
        policy_names: what the label `skip_policy` may say besides "inline" and "added".
    """

    def __init__(
        self, registry: CollectorRegistry, model: str, policy_names: Collection[str]
    ) -> None:
        self.registry = registry
        self.model = model
        self._policy_names = frozenset({*policy_names, ADDED_LABEL})
        self._made = {metric: self._make(metric) for metric in declared(Metrics)}
        # As many as are shown. Asking prometheus_client takes 1 us, and a step has dozens of them.
        self._series: dict[tuple[Metric[Any], tuple[str, ...]], Any] = {}

    def of(self, metric: Metric[Family], *values: str) -> Family:
        """Return the series of a metric with these values of its labels.

        A policy that has no name here is "inline": no client can make series.
        """
        is_by_policy = metric.labels and metric.labels[0] is SKIP_POLICY
        if is_by_policy and values[0] not in self._policy_names:
            values = INLINE_NAME, *values[1:]
        series: Family | None = self._series.get((metric, values))
        if series is None:
            series = self._made[metric].labels(self.model, *values)
            self._series[metric, values] = series
        return series

    def read(self, metric: Metric[Any]) -> Shown:
        """Return all series of a metric as they stand."""
        shown: Shown = self._made[metric].collect()[0]
        return shown

    def _make(self, metric: Metric[Any]) -> Any:
        """Register a metric. Series that are known beforehand begin at 0."""
        names = ("model", *(label.name for label in metric.labels))
        options = {"buckets": metric.buckets} if metric.family is Histogram else {}
        made = metric.family(metric.name, metric.meaning, names, registry=self.registry, **options)
        known = [label.values for label in metric.labels if not isinstance(label.values, str)]
        if len(known) == len(metric.labels):
            for values in product(*known):
                made.labels(self.model, *values)
        return made
