"""Our metrics once more, by the names that vLLM gives them: dashboards and routers know those."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Shown
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from skipserve.engine.reports import FinishReason, Stage
from skipserve.metrics.families import Families
from skipserve.metrics.metric import Metric
from skipserve.metrics.table import Metrics

_PREFIX = "vllm:"
# One engine stands behind a server; vLLM numbers those that share a port.
_ENGINE = "0"
# When a series began: that of a sum means nothing.
_CREATED = "_created"
# vLLM's words by ours.
_REASONS = {reason.value: reason.value for reason in FinishReason} | {
    FinishReason.CANCELLED.value: "abort",
    "error": "error",
}


@dataclass(frozen=True)
class Alias:
    """A name of vLLM's for what metrics of ours say.

    Attributes:
        name: without its prefix, and without a counter's suffix.
        sources: ours, of one kind and with the same buckets; it is their sum over all labels.
        stage: of the sources, the one that is meant; None where they have no stages.
        is_by_reason: whether the reason why requests ended stays a label.
    """

    name: str
    sources: tuple[Metric[Any], ...]
    stage: Stage | None = None
    is_by_reason: bool = False

    @property
    def full_name(self) -> str:
        """As Prometheus knows it."""
        return f"{_PREFIX}{self.name}{'_total' if self.sources[0].family is Counter else ''}"

    @property
    def said(self) -> str:
        """Our names for the same."""
        stage = f'{{stage="{self.stage}"}}' if self.stage else ""
        return " + ".join(f"`{metric.name}{stage}`" for metric in self.sources)


ALIASES = (
    Alias("num_requests_running", (Metrics.requests_running,)),
    Alias("num_requests_waiting", (Metrics.requests_waiting,)),
    Alias("kv_cache_usage_perc", (Metrics.kv_cache_usage_ratio,)),
    Alias("num_preemptions", (Metrics.preemptions,)),
    Alias("prefix_cache_queries", (Metrics.prefix_cache_queries,)),
    Alias("prefix_cache_hits", (Metrics.prefix_cache_hits,)),
    Alias("prompt_tokens", (Metrics.prompt_tokens, Metrics.image_tokens)),
    Alias("generation_tokens", (Metrics.generated_tokens,)),
    Alias("request_success", (Metrics.requests,), is_by_reason=True),
    Alias("iteration_tokens_total", (Metrics.engine_step_rows,)),
    Alias("time_to_first_token_seconds", (Metrics.time_to_first_token_seconds,)),
    Alias("inter_token_latency_seconds", (Metrics.inter_token_latency_seconds,)),
    Alias("e2e_request_latency_seconds", (Metrics.request_duration_seconds,)),
    Alias("request_queue_time_seconds", (Metrics.stage_duration_seconds,), Stage.QUEUE),
    Alias("request_decode_time_seconds", (Metrics.stage_duration_seconds,), Stage.DECODE),
    # Older names, that dashboards and the router of vLLM's production stack still read.
    Alias("gpu_cache_usage_perc", (Metrics.kv_cache_usage_ratio,)),
    Alias("gpu_prefix_cache_queries", (Metrics.prefix_cache_queries,)),
    Alias("gpu_prefix_cache_hits", (Metrics.prefix_cache_hits,)),
    Alias("time_per_output_token_seconds", (Metrics.inter_token_latency_seconds,)),
)
CACHE_CONFIG = f"{_PREFIX}cache_config_info"

# What tells the series of a metric apart: the end of its name, and its labels.
_Key = tuple[str, frozenset[tuple[str, str]]]


class VllmNames(Collector):
    """Shows our metrics by vLLM's names; keeps no count of its own.

    Args:
        families: what is shown.
        page_size: positions whose keys and values share a page.
        reuses_prefixes: whether pages outlive the request that computed them.
    """

    def __init__(self, families: Families, page_size: int, reuses_prefixes: bool) -> None:
        self._families = families
        self._cache = {"block_size": str(page_size), "enable_prefix_caching": str(reuses_prefixes)}
        self._blanks = {alias: _blank(alias, families.model) for alias in ALIASES}

    def collect(self) -> Iterator[Shown]:
        """Yield the metrics as they stand."""
        for alias, blank in self._blanks.items():
            sums = self._sums(alias)
            (shown,) = blank.collect()
            shown.samples = [
                sample._replace(value=sums.get(key, 0.0))
                for sample in shown.samples
                if (key := _key(shown, sample, sample.labels))[0] != _CREATED
            ]
            yield shown
        yield self._cache_config()

    def _sums(self, alias: Alias) -> dict[_Key, float]:
        """Return what our series say that share vLLM's labels, together."""
        sums: dict[_Key, float] = defaultdict(float)
        for metric in alias.sources:
            family = self._families.read(metric)
            for sample in family.samples:
                if alias.stage in (None, sample.labels.get("stage")):
                    sums[_key(family, sample, _labels(alias, sample.labels))] += sample.value
        return sums

    def _cache_config(self) -> Shown:
        """Return how large the cache is, once its engine has told."""
        pages = self._families.read(Metrics.kv_cache_pages).samples
        num_pages = sum(int(sample.value) for sample in pages)
        labels = self._cache | {"num_gpu_blocks": str(num_pages), "engine": _ENGINE}
        shown = GaugeMetricFamily(
            CACHE_CONFIG, "1; the pages of keys and values.", labels=list(labels)
        )
        if num_pages:
            shown.add_metric(list(labels.values()), 1)
        return shown


def _blank(alias: Alias, model: str) -> Any:
    """Return a metric of vLLM's with all its series, each at 0."""
    source = alias.sources[0]
    options = {"buckets": source.buckets} if source.family is Histogram else {}
    meaning = f"vLLM's name for {alias.said}.".replace("`", "")
    names = ("model_name", "engine", *(("finished_reason",) if alias.is_by_reason else ()))
    blank = source.family(_PREFIX + alias.name, meaning, names, registry=None, **options)
    for reason in [(it,) for it in _REASONS.values()] if alias.is_by_reason else [()]:
        blank.labels(model, _ENGINE, *reason)
    return blank


def _key(family: Shown, sample: Sample, labels: dict[str, str]) -> _Key:
    return sample.name.removeprefix(family.name), frozenset(labels.items())


def _labels(alias: Alias, ours: dict[str, str]) -> dict[str, str]:
    """Return vLLM's labels of a series of ours."""
    labels = {"model_name": ours["model"], "engine": _ENGINE}
    if alias.is_by_reason:
        labels["finished_reason"] = _REASONS[ours["finish_reason"]]
    if "le" in ours:
        labels["le"] = ours["le"]
    return labels
