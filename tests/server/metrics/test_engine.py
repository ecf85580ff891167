"""The metrics of the engine: what its reports and states become."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from skipserve.engine.reports import (
    EngineState,
    Executed,
    FailureKind,
    FinishReason,
    Ready,
    Retry,
    Stage,
    StepMode,
    StepOutput,
    StepReport,
)
from skipserve.metrics.engine import EngineMetrics
from skipserve.metrics.families import Families

pytestmark = pytest.mark.fast

COUNTERS = {
    "num_page_evictions": "prefix_cache_evictions_total",
    "num_preemptions": "preemptions_total",
    "num_encoder_queries": "encoder_cache_queries_total",
    "num_encoder_hits": "encoder_cache_hits_total",
    "num_encoder_evictions": "encoder_cache_evictions_total",
}


class Metrics(EngineMetrics):
    """The metrics with a way to read them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        super().__init__(Families(self.registry, "tiny", {"full", "skip-two"}))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"skipserve_{name}", {"model": "tiny", **labels})


def test_work_is_counted_by_policy() -> None:
    metrics = Metrics()
    executed = {"full": Executed(100, 100, 9, 9), "skip-two": Executed(70, 100, 7, 8, 3, 2)}
    metrics.record_step(StepReport(executed, 0.02, 2, 2, 2))
    metrics.record_step(StepReport({"skip-two": Executed(70, 100, 7, 8, 3, 2)}, 0.01, 1, 1, 1))
    for name, value in {"executed_flops_total": 140, "saved_flops_total": 60}.items():
        assert metrics.value(name, skip_policy="skip-two") == value
    labels = {"skip_policy": "skip-two"}
    assert metrics.value("executed_sublayers_total", kind="attention", **labels) == 14
    assert metrics.value("executed_sublayers_total", kind="ffn", **labels) == 16
    assert metrics.value("skipped_sublayers_total", kind="attention", **labels) == 6
    assert metrics.value("skipped_sublayers_total", kind="ffn", **labels) == 4
    assert metrics.value("executed_flops_total", skip_policy="full") == 100
    assert metrics.value("saved_flops_total", skip_policy="full") == 0


def test_a_step_that_saves_less_than_nothing_is_made_up_for() -> None:
    """A counter never falls: it grows again when what was lost is regained."""
    metrics = Metrics()
    steps = (Executed(100, 100, 4, 4, 5, 6), Executed(90, 60, 4, 4, -3, -4), Executed(10, 20, 1, 1))
    seen = []
    for executed in (*steps, Executed(0, 50, 0, 0, 10, 10)):
        metrics.record_step(StepReport({"full": executed}, 0.1, 1, 1, 1))
        labels = {"skip_policy": "full"}
        seen.append(
            (
                metrics.value("saved_flops_total", **labels),
                metrics.value("skipped_sublayers_total", kind="ffn", **labels),
            )
        )
    assert seen == [(0, 6), (0, 6), (0, 6), (30, 12)]
    assert metrics.value("executed_flops_total", skip_policy="full") == 200


def test_a_policy_without_a_name_is_inline() -> None:
    metrics = Metrics()
    metrics.record_step(StepReport({"mine": Executed(7, 7)}, 0.1, 1, 1, 1))
    assert metrics.value("executed_flops_total", skip_policy="inline") == 7
    assert metrics.value("executed_flops_total", skip_policy="mine") is None


def test_the_shape_of_steps_is_observed() -> None:
    metrics = Metrics()
    metrics.record_step(StepReport({}, seconds=0.0004, num_rows=300, num_sequences=5, num_plans=2))
    sums = {"seconds": 0.0004, "rows": 300, "requests": 5, "policies": 2}
    for name, value in sums.items():
        assert metrics.value(f"engine_step_{name}_sum") == value
        assert metrics.value(f"engine_step_{name}_count") == 1
    assert metrics.value("engine_step_seconds_bucket", le="0.0005") == 1
    assert metrics.value("engine_step_rows_bucket", le="256.0") == 0
    assert metrics.value("engine_step_policies_bucket", le="2.0") == 1


def test_the_memory_is_shown_as_it_is() -> None:
    metrics = Metrics()
    metrics.record_state(
        EngineState(
            num_pages=100, num_pages_used=25, num_pages_cached=15, encoder_bytes=2**20, num_faults=1
        )
    )
    assert metrics.value("kv_cache_usage_ratio") == 0.25
    pages = {state: metrics.value("kv_cache_pages", state=state) for state in ("used", "cached")}
    assert pages == {"used": 25, "cached": 15}
    assert metrics.value("kv_cache_pages", state="free") == 60
    assert metrics.value("encoder_cache_bytes") == 2**20
    assert metrics.value("integrity_faults") == 1
    metrics.record_state(EngineState())
    assert metrics.value("kv_cache_usage_ratio") == 0
    assert metrics.value("integrity_faults") == 0


@pytest.mark.parametrize(("field", "name"), COUNTERS.items())
def test_what_the_engine_counts_becomes_a_counter(field: str, name: str) -> None:
    metrics = Metrics()
    assert metrics.value(name) == 0
    for count in (3, 3, 10):
        metrics.record_state(EngineState(**{field: count}))
    assert metrics.value(name) == 10
    # A new engine counts from 0.
    metrics.record_state(EngineState(**{field: 2}))
    assert metrics.value(name) == 12


@given(st.lists(st.integers(0, 5)))
def test_a_counter_never_goes_back(counts: list[int]) -> None:
    metrics = Metrics()
    values = [0.0]
    for count in counts:
        metrics.record_state(EngineState(num_preemptions=count))
        values.append(metrics.value("preemptions_total") or 0.0)
    assert values == sorted(values)


@pytest.mark.parametrize("mode", StepMode)
def test_steps_are_counted_by_how_they_ran(mode: StepMode) -> None:
    metrics = Metrics()
    assert metrics.value("engine_steps_total", mode=mode.value) == 0
    metrics.record_step(StepReport({}, 0.1, 1, 1, 1, mode))
    assert {it: metrics.value("engine_steps_total", mode=it.value) for it in StepMode} == {
        it: int(it is mode) for it in StepMode
    }


def test_encoded_images_are_counted_by_policy() -> None:
    metrics = Metrics()
    metrics.record_step(StepReport({"full": Executed(images=2)}, 0.1, 1, 1, 1))
    assert metrics.value("images_encoded_total", skip_policy="full") == 2


@pytest.mark.parametrize("kind", FailureKind)
def test_failures_are_counted_by_why(kind: FailureKind) -> None:
    metrics = Metrics()
    assert metrics.value("request_failures_total", reason=kind.value) == 0
    metrics.record_failure(kind)
    assert metrics.value("request_failures_total", reason=kind.value) == 1


@pytest.mark.parametrize("reason", Retry)
def test_requests_that_go_on_elsewhere_are_counted(reason: Retry) -> None:
    metrics = Metrics()
    assert metrics.value("request_retries_total", reason=reason.value) == 0
    metrics.record_retry(reason)
    assert metrics.value("request_retries_total", reason=reason.value) == 1


def test_what_was_loaded_is_told() -> None:
    metrics = Metrics()
    metrics.record_ready(Ready("cuda:0", "bfloat16", "ab12", 4096))
    labels = {"device": "cuda:0", "dtype": "bfloat16", "weights_digest": "ab12"}
    assert metrics.value("engine_info", **labels) == 1


def test_outputs_count_tokens_and_book_their_time() -> None:
    metrics = Metrics()
    seconds = {Stage.QUEUE: 0.5, Stage.PREFILL: 0.25}
    metrics.record_output("skip-two", StepOutput("r", 5, stage_seconds=seconds))
    metrics.record_output("skip-two", StepOutput("r", None, finish_reason=FinishReason.CANCELLED))
    assert metrics.value("generated_tokens_total", skip_policy="skip-two") == 1
    assert metrics.value("stage_duration_seconds_sum", stage="queue") == 0.5
    assert metrics.value("stage_duration_seconds_sum", stage="prefill") == 0.25


def test_the_engine_is_asked_when_metrics_are_read() -> None:
    metrics = Metrics()
    is_up = True
    load: dict[str, int] = {"running": 1, "waiting": 4}
    process_ids = {"engine": os.getpid()}
    metrics.watch_engine(
        lambda: is_up,
        lambda: load["running"],
        lambda: load["waiting"],
        lambda: process_ids.get("engine"),
    )
    assert metrics.value("engine_up") == 1
    assert metrics.value("requests_running") == 1
    assert metrics.value("requests_waiting") == 4
    memory = "skipserve_engine_process_resident_memory_bytes"
    assert metrics.registry.get_sample_value(memory)
    is_up = False
    load["running"] = 0
    del process_ids["engine"]
    assert metrics.value("engine_up") == 0
    assert metrics.value("requests_running") == 0
    assert metrics.registry.get_sample_value(memory) is None
