"""What an engine tells of its work, counted. Knows nothing of the engine's inside."""

from collections.abc import Callable

from prometheus_client import Counter, ProcessCollector

from skipserve.engine.reports import (
    EngineState,
    Executed,
    FailureKind,
    Ready,
    Retry,
    StepOutput,
    StepReport,
)
from skipserve.metrics.families import Families
from skipserve.metrics.table import Metrics, PageState
from skipserve.service.observer import Observer

# By the field of the engine's state that counts it from the engine's start.
_COUNTED = {
    "num_page_evictions": Metrics.prefix_cache_evictions,
    "num_preemptions": Metrics.preemptions,
    "num_encoder_queries": Metrics.encoder_cache_queries,
    "num_encoder_hits": Metrics.encoder_cache_hits,
    "num_encoder_evictions": Metrics.encoder_cache_evictions,
}


class EngineMetrics(Observer):
    """Hears what an engine does, and counts it.

    Args:
        families: where it is counted.
    """

    def __init__(self, families: Families) -> None:
        self._registry, self._of = families.registry, families.of
        self._last = EngineState()
        # By counter, what it would have to be lessened by.
        self._owed: dict[Counter, int] = {}

    def watch_engine(
        self,
        is_ready: Callable[[], bool],
        num_running: Callable[[], int],
        num_waiting: Callable[[], int],
        pid: Callable[[], int | None],
    ) -> None:
        """Ask for the engine's condition whenever the metrics are read."""
        self._of(Metrics.engine_up).set_function(is_ready)
        self._of(Metrics.requests_running).set_function(num_running)
        self._of(Metrics.requests_waiting).set_function(num_waiting)
        ProcessCollector("skipserve_engine", lambda: pid() or "none", registry=self._registry)

    def record_ready(self, ready: Ready) -> None:
        """Tell what was loaded."""
        self._of(Metrics.engine_info, ready.device, ready.dtype, ready.weights_digest).set(1)

    def record_state(self, state: EngineState) -> None:
        """Show how the engine stands, and count what was counted there since the last state."""
        for field, metric in _COUNTED.items():
            self._of(metric).inc(_increase(getattr(self._last, field), getattr(state, field)))
        self._last = state
        num_held = state.num_pages_used + state.num_pages_cached
        self._of(Metrics.kv_cache_pages, PageState.USED).set(state.num_pages_used)
        self._of(Metrics.kv_cache_pages, PageState.CACHED).set(state.num_pages_cached)
        self._of(Metrics.kv_cache_pages, PageState.FREE).set(state.num_pages - num_held)
        self._of(Metrics.kv_cache_usage_ratio).set(state.num_pages_used / max(state.num_pages, 1))
        self._of(Metrics.encoder_cache_bytes).set(state.encoder_bytes)
        self._of(Metrics.integrity_faults).set(state.num_faults)

    def record_step(self, report: StepReport) -> None:
        """Count what a step did, over all its requests."""
        for policy_name, executed in report.executed.items():
            self._record_executed(policy_name, executed)
        self._of(Metrics.engine_steps, report.mode).inc()
        self._of(Metrics.engine_step_seconds).observe(report.seconds)
        self._of(Metrics.engine_step_rows).observe(report.num_rows)
        self._of(Metrics.engine_step_requests).observe(report.num_sequences)
        self._of(Metrics.engine_step_policies).observe(report.num_plans)

    def record_output(self, policy_name: str, output: StepOutput) -> None:
        """Count what a step gave a request."""
        if output.token_id is not None:
            self._of(Metrics.generated_tokens, policy_name).inc()
        for stage, seconds in output.stage_seconds.items():
            self._of(Metrics.stage_duration_seconds, stage).observe(seconds)

    def record_failure(self, kind: FailureKind) -> None:
        """Count a request that the engine gave up."""
        self._of(Metrics.request_failures, kind).inc()

    def record_retry(self, reason: Retry) -> None:
        """Count a request that goes on in another engine."""
        self._of(Metrics.request_retries, reason).inc()

    def _record_executed(self, policy: str, executed: Executed) -> None:
        of = self._of
        of(Metrics.executed_flops, policy).inc(executed.flops)
        self._add(of(Metrics.saved_flops, policy), executed.full_flops - executed.flops)
        of(Metrics.executed_sublayers, policy, "attention").inc(executed.attention)
        of(Metrics.executed_sublayers, policy, "ffn").inc(executed.ffn)
        self._add(of(Metrics.skipped_sublayers, policy, "attention"), executed.skipped_attention)
        self._add(of(Metrics.skipped_sublayers, policy, "ffn"), executed.skipped_ffn)
        of(Metrics.images_encoded, policy).inc(executed.images)
        of(Metrics.dropped_rows, policy).inc(executed.dropped)

    def _add(self, counter: Counter, amount: int) -> None:
        """Add what may be negative to a counter, which then grows again once that is made up for.

        A step that goes on with rows of another one's runs more than the full model would, and so
        does a policy whose choice of rows costs more than it saves.
        """
        amount -= self._owed.pop(counter, 0)
        if amount < 0:
            self._owed[counter] = -amount
        else:
            counter.inc(amount)


def _increase(before: int, now: int) -> int:
    """Return what was counted between two states; a lower count is that of a new engine."""
    return now - before if now >= before else now
