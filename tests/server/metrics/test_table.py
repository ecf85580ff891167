"""The table of the metrics: what holds for every entry."""

from typing import Any

import pytest
from prometheus_client import Counter, Histogram

from skipserve.metrics.metric import Metric, declared
from skipserve.metrics.table import SKIP_POLICY, Metrics, ProcessMetrics

pytestmark = pytest.mark.fast

OURS = declared(Metrics)
each = pytest.mark.parametrize("metric", OURS, ids=[metric.name for metric in OURS])
UNITS = ("seconds", "bytes", "ratio", "rows", "requests", "policies", "pages", "faults")
STATES = {
    f"skipserve_{name}" for name in ("engine_up", "prompt_tokens_waiting", "images_waiting")
} | {f"skipserve_requests_{state}" for state in ("running", "waiting")}


@pytest.mark.parametrize("metric", [*OURS, *declared(ProcessMetrics)])
def test_each_says_what_it_means_and_what_to_look_at(metric: Metric[Any]) -> None:
    assert metric.unit
    for text in (metric.meaning, metric.advice):
        assert text.endswith((".", "?"))
        assert "|" not in text


@each
def test_names_end_in_their_unit(metric: Metric[Any]) -> None:
    is_known = metric.family is Counter or metric.name in STATES or metric.name.endswith("_info")
    assert is_known or metric.name.endswith(UNITS)


@each
def test_histograms_alone_have_buckets(metric: Metric[Any]) -> None:
    assert bool(metric.buckets) == (metric.family is Histogram)
    assert list(metric.buckets) == sorted(set(metric.buckets))


@each
def test_the_policy_is_the_first_label(metric: Metric[Any]) -> None:
    assert SKIP_POLICY not in metric.labels[1:]
