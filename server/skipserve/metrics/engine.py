"""What the engine's steps did and how it stands, as Prometheus metrics."""

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import Counter, ProcessCollector

from skipserve.engine.reports import EngineState, Executed, FailureKind, Ready, StepMode, StepReport
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


class _Counted(NamedTuple):
    """What an EngineState counts since the engine's start, as a counter."""

    name: str
    unit: str
    meaning: str
    advice: str


# By the name of the field.
_COUNTED = {
    "num_page_evictions": _Counted(
        "prefix_cache_evictions",
        "pages",
        "Cached pages given up for others.",
        "Normal in a full cache. With a falling hit ratio: more memory (`--kv-cache-gib`), or send "
        "the same image to the same replica.",
    ),
    "num_preemptions": _Counted(
        "preemptions",
        "requests",
        "Requests put back to wait because pages, or the device's memory, ran out.",
        "Each is computed again. Fewer requests at a time (`--max-running-requests`) or more "
        "memory (`--kv-cache-gib`).",
    ),
    "num_encoder_queries": _Counted(
        "encoder_cache_queries",
        "images",
        "Images that a step needed.",
        "The base of the hit ratio.",
    ),
    "num_encoder_hits": _Counted(
        "encoder_cache_hits",
        "images",
        "Of those, the ones not encoded for it.",
        "Few, with images that repeat: `--encoder-cache-mib` is too small.",
    ),
    "num_encoder_evictions": _Counted(
        "encoder_cache_evictions",
        "images",
        "Projected images given up for others.",
        "As many as queries: the cache is too small to be of use.",
    ),
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
        self._define_condition()
        self._counted: dict[str, Counter] = {}
        for field, it in _COUNTED.items():
            family = families.counter(it.name, it.meaning, it.advice, unit=it.unit)
            self._counted[field] = family.labels(self._model)

    def watch(
        self,
        is_up: Callable[[], bool],
        num_running: Callable[[], int],
        num_waiting: Callable[[], int],
        process_id: Callable[[], int | None],
    ) -> None:
        """Ask for the engine's condition whenever the metrics are read."""
        self._up.labels(self._model).set_function(is_up)
        self._running.labels(self._model).set_function(num_running)
        self._waiting.labels(self._model).set_function(num_waiting)
        ProcessCollector(
            namespace="skipserve_engine",
            pid=lambda: process_id() or "none",
            registry=self._families.registry,
        )

    def record_ready(self, ready: Ready) -> None:
        """Tell what was loaded."""
        self._info.labels(self._model, ready.device, ready.dtype, ready.weights_digest).set(1)

    def record_failure(self, kind: FailureKind) -> None:
        """Count a request that the engine gave up."""
        self._failures.labels(self._model, kind.value).inc()

    def record_step(self, report: StepReport) -> None:
        """Count what a step did, over all its requests."""
        for policy_name, executed in report.executed.items():
            self._record_executed(policy_name, executed)
        self._steps[report.mode].inc()
        self._step_seconds.observe(report.seconds)
        self._step_rows.observe(report.num_rows)
        self._step_requests.observe(report.num_sequences)
        self._step_policies.observe(report.num_plans)

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
            self._pages[name].set(num_pages)
        self._usage.set(state.num_pages_used / max(state.num_pages, 1))
        self._encoder_bytes.set(state.encoder_bytes)
        self._faults.set(state.num_faults)

    def _record_executed(self, policy_name: str, executed: Executed) -> None:
        labels = self._families.policy_labels(policy_name)
        self._executed_flops.labels(*labels).inc(executed.flops)
        self._saved_flops.labels(*labels).inc(executed.full_flops - executed.flops)
        self._executed_sublayers.labels(*labels, "attention").inc(executed.attention)
        self._executed_sublayers.labels(*labels, "ffn").inc(executed.ffn)
        self._skipped_sublayers.labels(*labels, "attention").inc(executed.skipped_attention)
        self._skipped_sublayers.labels(*labels, "ffn").inc(executed.skipped_ffn)
        self._encoded_images.labels(*labels).inc(executed.images)

    def _define_work(self) -> None:
        counter = self._families.counter
        self._executed_flops = counter(
            "executed_flops",
            "FLOPs of all rows launched.",
            "FLOPs per answer: divide by `skipserve_requests_total` of `stop` and `length`.",
            unit="FLOPs",
            labels=("skip_policy",),
        )
        self._saved_flops = counter(
            "saved_flops",
            "FLOPs that the full model would have spent besides on the same rows.",
            "The saved ratio is this over this plus the executed ones; beside the planned one, "
            "`skipserve_skip_policy_saved_ratio`, it shows what traffic makes of a policy.",
            unit="FLOPs",
            labels=("skip_policy",),
        )
        self._executed_sublayers = counter(
            "executed_sublayers",
            "Sublayers run, one for each row and layer.",
            "None of a kind: the policy skips it everywhere.",
            unit="sublayers",
            labels=("skip_policy", "kind"),
        )
        self._skipped_sublayers = counter(
            "skipped_sublayers",
            "Sublayers that the full model would have run besides.",
            "0 for a policy that skips: its scope has no rows in this traffic.",
            unit="sublayers",
            labels=("skip_policy", "kind"),
        )
        self._encoded_images = counter(
            "images_encoded",
            "Images that the vision tower ran for.",
            "Over `skipserve_images_total`: the share of images that no cache had.",
            unit="images",
            labels=("skip_policy",),
        )

    def _define_steps(self) -> None:
        counter, histogram = self._families.counter, self._families.histogram
        steps = counter(
            "engine_steps",
            "Steps of the engine, by how they ran: as a CUDA graph of one plan (uniform), as one "
            "of any mix (gated), or without a graph (eager).",
            "Eager: prefill, more than 64 rows, or parallel blocks; all steps on a CPU. Much "
            "gated: name the policies in `--hot-policies`.",
            unit="steps",
            labels=("mode",),
        )
        self._steps = {mode: steps.labels(self._model, mode.value) for mode in StepMode}
        self._step_seconds = histogram(
            "engine_step_seconds",
            "How long a step of the engine took.",
            "Bounds the time between two tokens. Slow: look at the rows and at the mode.",
            _STEP_SECONDS,
            unit="seconds",
        ).labels(self._model)
        self._step_rows = histogram(
            "engine_step_rows",
            "Rows that a step launched.",
            "At `--max-batch-tokens` for long: prefill fills the steps, and tokens wait for it.",
            _NUM_ROWS,
            unit="rows",
        ).labels(self._model)
        self._step_requests = histogram(
            "engine_step_requests",
            "Requests that took part in a step.",
            "Low while requests wait: pages are short, see `skipserve_kv_cache_usage_ratio`.",
            _NUM_REQUESTS,
            unit="requests",
        ).labels(self._model)
        self._step_policies = histogram(
            "engine_step_policies",
            "Distinct plans among a step's requests.",
            "A mix skips less than its parts: a layer is launched if any row wants it.",
            _NUM_POLICIES,
            unit="plans",
        ).labels(self._model)

    def _define_memory(self) -> None:
        gauge = self._families.gauge
        self._usage = gauge(
            "kv_cache_usage_ratio",
            "Share of the pages that requests hold.",
            "Near 1: requests wait or are preempted; more memory or fewer requests at a time.",
            unit="ratio",
        ).labels(self._model)
        pages = gauge(
            "kv_cache_pages",
            "Pages: used by requests, cached for reuse (nobody holds them), or free.",
            "Cached pages are given up when used ones need room.",
            unit="pages",
            labels=("state",),
        )
        states = ("used", "cached", "free")
        self._pages = {state: pages.labels(self._model, state) for state in states}
        self._encoder_bytes = gauge(
            "encoder_cache_bytes",
            "Projected images that are kept.",
            "At `--encoder-cache-mib`: the cache is full; look at its evictions.",
            unit="bytes",
        ).labels(self._model)

    def _define_condition(self) -> None:
        gauge = self._families.gauge
        self._up = gauge(
            "engine_up",
            "1 while the engine takes requests and makes progress.",
            "0: it loads, hangs, is gone, or the server is stopping; the log says which.",
            unit="0 or 1",
        )
        self._running = gauge(
            "requests_running",
            "Requests under way in the engine.",
            "With the waiting ones: the load of a replica, to scale on.",
            unit="requests",
        )
        self._waiting = gauge(
            "requests_waiting",
            "Requests handed over to the engine that do not run.",
            "Grows: more comes than is served; add replicas, or a policy that saves more.",
            unit="requests",
        )
        self._faults = gauge(
            "integrity_faults",
            "The most that a check of the bookkeeping has found wrong.",
            "Anything but 0 is a bug: take the replica out and report it with the log.",
            unit="faults",
        ).labels(self._model)
        self._info = gauge(
            "engine_info",
            "1; which weights run, and on what. Absent until they are loaded.",
            "Differs among replicas: they do not give the same answers.",
            unit="1",
            labels=("device", "dtype", "weights_digest"),
        )
        self._failures = self._families.counter(
            "request_failures",
            "Requests that the engine gave up.",
            "engine: the log has the exception. out_of_memory: fewer requests or batch tokens. "
            "queue_timeout: more comes than is served. deadline, invalid: the clients' wishes.",
            unit="requests",
            labels=("reason",),
        )
        for kind in FailureKind:
            self._failures.labels(self._model, kind.value)


def _increase(before: int, now: int) -> int:
    """Return what was counted between two states; a lower count is that of a new engine."""
    return now - before if now >= before else now
