"""The metrics: their names, what feeds them, and that labels come from closed sets only."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from skipserve.engine.reports import Executed, FinishReason, StepOutput, StepReport
from skipserve.metrics.registry import ServerMetrics
from skipserve.metrics.table import Rejection
from skipserve_policies.resolve import ResolvedPolicy, resolve
from skipserve_policies.schema import Quality, SkipPolicy

pytestmark = pytest.mark.fast

POLICIES = (
    resolve("full", SkipPolicy(), 32),
    resolve(
        "skip-two",
        SkipPolicy.model_validate({"rules": [{"action": "skip_block", "layers": [18, 21]}]}),
        32,
    ),
)


class Metrics(ServerMetrics):
    """The metrics with a way to read them."""

    def __init__(self, policies: Iterable[ResolvedPolicy] = POLICIES) -> None:
        self.registry = CollectorRegistry()
        super().__init__(self.registry, "tiny", policies)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"skipserve_{name}", {"model": "tiny", **labels})

    def series(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for metric in self.registry.collect()
            for sample in metric.samples
        }


def test_latencies_are_observed_by_policy() -> None:
    metrics = Metrics()
    metrics.record_request("full", FinishReason.STOP, 0.2)
    metrics.record_first_token("full", 0.1)
    metrics.record_inter_token("full", 0.01)
    for name, value in {
        "request_duration_seconds_sum": 0.2,
        "time_to_first_token_seconds_sum": 0.1,
        "inter_token_latency_seconds_sum": 0.01,
    }.items():
        assert metrics.value(name, skip_policy="full") == value


def test_the_use_of_the_prefix_cache_is_counted_in_tokens() -> None:
    metrics = Metrics()
    metrics.record_prefix_use("full", num_prompt=640, num_cached=0)
    metrics.record_prefix_use("full", num_prompt=640, num_cached=624)
    assert metrics.value("prefix_cache_queries_total", skip_policy="full") == 1280
    assert metrics.value("prefix_cache_hits_total", skip_policy="full") == 624


def test_requests_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    for reason in (FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED, None):
        metrics.record_request("full", reason, 1.0)
    for label in ("stop", "length", "cancelled", "error"):
        assert metrics.value("requests_total", skip_policy="full", finish_reason=label) == 1
    assert metrics.value("cancellations_total") == 1
    assert metrics.value("request_duration_seconds_count", skip_policy="full") == 4


@pytest.mark.parametrize("end", ["stop", "length", "cancelled", "error"])
def test_the_ends_of_requests_begin_at_0_with_the_first_prompt(end: str) -> None:
    metrics = Metrics()
    metrics.record_prompt("full", num_text=60, num_visual=0, num_images=0)
    assert metrics.value("requests_total", skip_policy="full", finish_reason=end) == 0
    assert metrics.value("requests_total", skip_policy="skip-two", finish_reason=end) is None


def test_prompt_rows_errors_and_rejections_are_counted() -> None:
    metrics = Metrics()
    metrics.record_prompt("full", num_text=60, num_visual=1152, num_images=2)
    metrics.record_error(404)
    metrics.record_rejection(Rejection.QUEUE_FULL)
    assert metrics.value("prompt_tokens_total", skip_policy="full") == 60
    assert metrics.value("image_tokens_total", skip_policy="full") == 1152
    assert metrics.value("images_total", skip_policy="full") == 2
    assert metrics.value("errors_total", code="404") == 1
    assert metrics.value("rejections_total", reason="queue_full") == 1


def test_the_queue_is_asked_when_metrics_are_read() -> None:
    metrics, waiting = Metrics(), [600]
    metrics.watch_queue(lambda: waiting[0])
    assert metrics.value("prompt_tokens_waiting") == 600
    waiting[0] = 0
    assert metrics.value("prompt_tokens_waiting") == 0


def test_a_policy_shows_what_it_saves_and_what_was_measured() -> None:
    metrics = Metrics()
    measured = Quality(model="tiny", dataset="demo", metric="exact match, in %", value=98.6, n=1050)
    metrics.show_policy("skip-two", 0.25, (measured,))
    metrics.show_policy("full", 0.0, ())
    assert metrics.value("skip_policy_saved_ratio", skip_policy="skip-two") == 0.25
    labels = {"dataset": "demo", "samples": "1050"}
    name = "skip_policy_quality_ratio"
    assert metrics.value(name, skip_policy="skip-two", **labels) == pytest.approx(0.986)
    assert metrics.value(name, skip_policy="full", **labels) is None


def test_of_each_data_set_the_first_share_is_shown_and_points_are_not() -> None:
    metrics = Metrics()
    measured = [
        Quality(model="tiny", dataset=data, metric=metric, value=value, n=9)
        for data, metric, value in (
            ("mme", "perception, in points", 1510.7),
            ("mme", "accuracy, in %", 80.0),
            ("pope", "F1, in %", 85.0),
            ("pope", "accuracy, in %", 87.0),
        )
    ]
    metrics.show_policy("skip-two", 0.25, measured)
    name = "skip_policy_quality_ratio"
    for data, share in (("mme", 0.8), ("pope", 0.85)):
        labels = {"dataset": data, "samples": "9"}
        assert metrics.value(name, skip_policy="skip-two", **labels) == pytest.approx(share)


def test_what_runs_is_told() -> None:
    metrics = Metrics()
    assert metrics.registry.get_sample_value("process_start_time_seconds")
    text = generate_latest(metrics.registry).decode()
    assert "skipserve_build_info{" in text
    digest, scope = POLICIES[1].digest, "generated"
    wanted = (
        f'default="false",digest="{digest}",model="tiny",scope="{scope}",skip_policy="skip-two"'
    )
    (line,) = [line for line in text.splitlines() if 'skip_policy="skip-two"' in line]
    assert sorted(line[line.index("{") + 1 : line.index("}")].split(",")) == wanted.split(",")


@pytest.mark.parametrize("default", [policy.name for policy in POLICIES])
def test_the_default_is_marked(default: str) -> None:
    registry = CollectorRegistry()
    ServerMetrics(registry, "tiny", POLICIES, default)
    text = generate_latest(registry).decode()
    marked = [line for line in text.splitlines() if 'default="true"' in line]
    assert len(marked) == 1
    assert f'skip_policy="{default}"' in marked[0]


def test_latency_buckets_start_low() -> None:
    metrics = Metrics()
    metrics.record_inter_token("full", 0.0009)
    metrics.record_request("full", FinishReason.STOP, 0.0049)
    assert metrics.value("inter_token_latency_seconds_bucket", skip_policy="full", le="0.001") == 1
    assert metrics.value("request_duration_seconds_bucket", skip_policy="full", le="0.005") == 1


def _record_all(metrics: ServerMetrics, name: str, code: int) -> None:
    metrics.record_request(name, FinishReason.STOP, 1.0)
    metrics.record_first_token(name, 1.0)
    metrics.record_inter_token(name, 1.0)
    metrics.record_prompt(name, 1, 1, 1)
    metrics.show_policy(name, 0.1, ())
    metrics.record_prefix_use(name, 1, 1)
    metrics.engine.record_output(name, StepOutput("r", 1))
    metrics.engine.record_step(StepReport({name: Executed()}, 0.1, 1, 1, 1))
    metrics.record_error(code)


KNOWN = ("full", "skip-two", "inline")


@given(
    st.text().filter(lambda name: name not in KNOWN),
    st.integers().filter(lambda code: not 400 <= code < 600),
)
def test_unknown_policies_and_codes_add_no_series(name: str, code: int) -> None:
    metrics = Metrics()
    for known in KNOWN:
        _record_all(metrics, known, 500)
    before = metrics.series()
    _record_all(metrics, name, code)
    assert metrics.series() == before
    assert metrics.value("requests_total", skip_policy="inline", finish_reason="stop") == 2


@pytest.mark.parametrize("record", ["record_stage", "record_rejection"])
def test_other_labels_are_closed_sets(record: str) -> None:
    arguments = ("lunch", 1.0) if record == "record_stage" else ("lunch",)
    with pytest.raises(ValueError, match="lunch"):
        getattr(Metrics(), record)(*arguments)
