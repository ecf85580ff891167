"""The metrics of all replicas on one page: each series says whose it is. No Ray."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from skipserve.metrics.table import Metrics

# What tells replicas apart everywhere: Prometheus keeps it as it is with `honor_labels`.
_LABEL = "instance"


class _Series(msgspec.Struct, frozen=True, array_like=True):
    name: str
    labels: dict[str, str]
    value: float


class _Family(msgspec.Struct, frozen=True, array_like=True):
    name: str
    documentation: str
    type: str
    series: tuple[_Series, ...]


def pack_page(registry: CollectorRegistry) -> bytes:
    """Return all metrics of a registry as they stand."""
    return msgspec.msgpack.encode([_packed(metric) for metric in registry.collect()])


class Pages:
    """The pages of several replicas as one, for `generate_latest`.

    Alerts ask of each address that is scraped whether an engine is up there: of an application, its
    ingress says so, whichever answers.

    Args:
        pages: packed, by the names of the replicas.
        here: the ingress that shows them; None for none.
    """

    def __init__(self, pages: Mapping[str, bytes], here: str | None = None) -> None:
        self._pages = pages
        self._here = here

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, those of one name together."""
        merged: dict[str, Metric] = {}
        for instance, page in self._pages.items():
            for family in msgspec.msgpack.decode(page, type=list[_Family]):
                metric = merged.get(family.name)
                if metric is None:
                    metric = Metric(family.name, family.documentation, family.type)
                    merged[family.name] = metric
                _add(metric, family.series, instance)
                if family.name == Metrics.engine_up.name and instance == self._here:
                    for it in family.series:
                        metric.add_sample(it.name, it.labels, it.value)
        yield from merged.values()


def _packed(metric: Metric) -> _Family:
    series = (_Series(it.name, it.labels, it.value) for it in metric.samples)
    return _Family(metric.name, metric.documentation, metric.type, tuple(series))


def _add(metric: Metric, series: Iterable[_Series], instance: str) -> None:
    for it in series:
        metric.add_sample(it.name, {**it.labels, _LABEL: instance}, it.value)
