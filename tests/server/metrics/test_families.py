"""The metrics of one model: which series begin at 0, and that clients cannot make any."""

from itertools import product
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from skipserve.engine.reports import FailureKind, Retry, StepMode
from skipserve.metrics.families import Families
from skipserve.metrics.metric import Metric, declared
from skipserve.metrics.table import SKIP_POLICY, Metrics, PageState, Rejection

pytestmark = pytest.mark.fast

LABELS: dict[Metric[Any], dict[str, Any]] = {
    Metrics.cancellations: {},
    Metrics.engine_steps: {"mode": StepMode},
    Metrics.kv_cache_pages: {"state": PageState},
    Metrics.rejections: {"reason": Rejection},
    Metrics.request_failures: {"reason": FailureKind},
    Metrics.request_retries: {"reason": Retry},
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def families(registry: CollectorRegistry) -> Families:
    return Families(registry, "tiny", {"full"})


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("metric", LABELS, ids=lambda metric: metric.name)
def test_series_that_are_known_beforehand_begin_at_0(
    metric: Metric[Any], registry: CollectorRegistry
) -> None:
    for values in product(*LABELS[metric].values()):
        labels = dict(zip(LABELS[metric], values, strict=True))
        assert registry.get_sample_value(metric.name, {"model": "tiny", **labels}) == 0


@pytest.mark.usefixtures("families")
def test_others_begin_with_what_is_told_of_them(registry: CollectorRegistry) -> None:
    late = {family.name for family in registry.collect() if not family.samples}
    assert {
        "skipserve_requests",
        "skipserve_errors",
        "skipserve_stage_duration_seconds",
        "skipserve_engine_info",
    } <= late


BY_POLICY = [
    metric
    for metric in declared(Metrics)
    if SKIP_POLICY in metric.labels and metric.family is Counter
]


@pytest.mark.parametrize("metric", BY_POLICY, ids=lambda metric: metric.name)
def test_a_policy_without_a_name_is_inline(
    metric: Metric[Counter], families: Families, registry: CollectorRegistry
) -> None:
    others = ["x" for _ in metric.labels[1:]]
    for policy in ("full", "mine", "inline"):
        families.of(metric, policy, *others).inc()
    rest = {label.name: "x" for label in metric.labels[1:]}
    values = {
        policy: registry.get_sample_value(
            metric.name, {"model": "tiny", "skip_policy": policy, **rest}
        )
        for policy in ("full", "mine", "inline")
    }
    assert values == {"full": 1, "mine": None, "inline": 2}
