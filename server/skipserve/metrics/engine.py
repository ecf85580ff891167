"""What the engine's steps did and how it stands, as Prometheus metrics."""

from prometheus_client import Counter

from skipserve.engine.types import EngineState, Executed, StepReport
from skipserve.metrics.families import Families

_STEP_SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
_NUM_ROWS = (
    *(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0),
    *(1024.0, 2048.0, 4096.0, 8192.0, 16384.0),
)
_NUM_REQUESTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_NUM_POLICIES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)

# What an EngineState counts since the engine's start, by the name of its field.
_COUNTED = {
    "num_page_evictions": ("prefix_cache_evictions", "Cached pages given up for others."),
    "num_preemptions": (
        "preemptions",
        "Requests put back to wait because pages, or the device's memory, ran out.",
    ),
    "num_encoder_queries": ("encoder_cache_queries", "Images that a step needed."),
    "num_encoder_hits": ("encoder_cache_hits", "Of those, the ones not encoded for it."),
    "num_encoder_evictions": ("encoder_cache_evictions", "Projected images given up for others."),
}


class EngineMetrics:
    """The metrics of one engine, fed by what it reports.

    Args:
        families: makes them.
    """

    def __init__(self, families: Families) -> None:
        self._families = families
        self._model = families.model
        self._last = EngineState()
        self._define_work()
        self._define_steps()
        self._define_memory()
        self._counted: dict[str, Counter] = {
            field: families.counter(*about).labels(self._model) for field, about in _COUNTED.items()
        }

    def record_step(self, report: StepReport) -> None:
        """Count what a step did, over all its requests."""
        for policy_name, executed in report.executed.items():
            self._record_executed(policy_name, executed)
        self._step_seconds.labels(self._model).observe(report.seconds)
        self._step_rows.labels(self._model).observe(report.num_rows)
        self._step_requests.labels(self._model).observe(report.num_sequences)
        self._step_policies.labels(self._model).observe(report.num_plans)

    def record_state(self, state: EngineState) -> None:
        """Show how the engine stands, and count what was counted there since the last state."""
        for field, counter in self._counted.items():
            counter.inc(_increase(getattr(self._last, field), getattr(state, field)))
        self._last = state
        num_held = state.num_pages_used + state.num_pages_cached
        for name, num_pages in {
            "used": state.num_pages_used,
            "cached": state.num_pages_cached,
            "free": state.num_pages - num_held,
        }.items():
            self._pages.labels(self._model, name).set(num_pages)
        self._usage.labels(self._model).set(state.num_pages_used / max(state.num_pages, 1))
        self._encoder_bytes.labels(self._model).set(state.encoder_bytes)
        self._faults.labels(self._model).set(state.num_faults)

    def _record_executed(self, policy_name: str, executed: Executed) -> None:
        labels = self._families.policy_labels(policy_name)
        self._executed_flops.labels(*labels).inc(executed.flops)
        self._saved_flops.labels(*labels).inc(executed.full_flops - executed.flops)
        self._executed_sublayers.labels(*labels, "attention").inc(executed.attention)
        self._executed_sublayers.labels(*labels, "ffn").inc(executed.ffn)
        self._skipped_sublayers.labels(*labels, "attention").inc(executed.skipped_attention)
        self._skipped_sublayers.labels(*labels, "ffn").inc(executed.skipped_ffn)

    def _define_work(self) -> None:
        counter = self._families.counter
        self._executed_flops = counter(
            "executed_flops", "FLOPs of all rows launched.", "skip_policy"
        )
        self._saved_flops = counter(
            "saved_flops",
            "FLOPs that the full model would have spent besides on the same rows.",
            "skip_policy",
        )
        self._executed_sublayers = counter(
            "executed_sublayers",
            "Sublayers run, one for each row and layer.",
            *("skip_policy", "kind"),
        )
        self._skipped_sublayers = counter(
            "skipped_sublayers",
            "Sublayers that the full model would have run besides.",
            *("skip_policy", "kind"),
        )

    def _define_steps(self) -> None:
        histogram = self._families.histogram
        self._step_seconds = histogram(
            "engine_step_seconds", "How long a step of the engine took.", _STEP_SECONDS
        )
        self._step_rows = histogram("engine_step_rows", "Rows that a step launched.", _NUM_ROWS)
        self._step_requests = histogram(
            "engine_step_requests", "Requests that took part in a step.", _NUM_REQUESTS
        )
        self._step_policies = histogram(
            "engine_step_policies", "Distinct plans among a step's requests.", _NUM_POLICIES
        )

    def _define_memory(self) -> None:
        gauge = self._families.gauge
        self._usage = gauge("kv_cache_usage_ratio", "Share of the pages that requests hold.")
        self._pages = gauge(
            "kv_cache_pages",
            "Pages: used by requests, cached for reuse (nobody holds them), or free.",
            "state",
        )
        self._encoder_bytes = gauge("encoder_cache_bytes", "Projected images that are kept.")
        self._faults = gauge(
            "integrity_faults",
            "The most that a check of the bookkeeping has found wrong; 0 is sound.",
        )


def _increase(before: int, now: int) -> int:
    """Return what was counted between two states; a lower count is that of a new engine."""
    return now - before if now >= before else now
