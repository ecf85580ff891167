"""The page about the metrics, docs/metrics.md: `python -m skipserve.metrics.page` prints it."""

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum

from prometheus_client import CollectorRegistry

from skipserve.engine.reports import FailureKind, FinishReason, Stage, StepMode
from skipserve.metrics.families import Metric
from skipserve.metrics.registry import Rejection, ServerMetrics

_BEFORE = """\
# Metrics

    curl -s http://127.0.0.1:8000/metrics -H "Authorization: Bearer $KEY"

`/metrics` is in Prometheus' text format. Where `--api-key` is set it wants one of those keys, or
one of `--metrics-api-key`, which opens nothing else. This page is made from the code and never
edited: `python -m skipserve.metrics.page > docs/metrics.md`.

Every metric of ours has the label `model`. The other labels are closed sets, so that no client can
make series; a policy without a name is `inline`. Counters begin at 0 when the server starts, those
with the label `skip_policy` with the first request under that policy.
"""
_HEAD = (
    "| metric | type | labels | unit | what it says | what to look at when it moves |",
    "|---|---|---|---|---|---|",
)
_PROCESSES = """\
The standard ones of a process, on Linux: as named here of the front end, and with the prefix
`skipserve_engine_` of the engine's process, while there is one. The server exits when its engine
dies, so `changes(process_start_time_seconds[1h])` counts its restarts.
"""

_Values = str | type[StrEnum]
_LABELS: dict[str, _Values] = {
    "code": "an HTTP status from 400 on",
    "dataset": "what `skipserve evaluate` was run on",
    "device": "as torch names it",
    "digest": "of what the policy computes",
    "dtype": "as torch names it",
    "finish_reason": f"{', '.join(f'`{it}`' for it in FinishReason)} by the client, `error`",
    "kind": "`attention`, `ffn`",
    "mode": StepMode,
    "python": "the version of Python",
    "samples": "how many questions the data set has",
    "scope": "the policy's scopes",
    "skip_policy": "the named policies, `inline`",
    "stage": Stage,
    "state": "`used`, `cached`, `free`",
    "version": "that of skipserve",
    "weights_digest": "sha256 of the weight files",
}
_REASONS: dict[str, type[StrEnum]] = {
    "skipserve_rejections_total": Rejection,
    "skipserve_request_failures_total": FailureKind,
}
# Of prometheus_client, which tells neither unit nor advice.
_OF_PROCESSES = (
    Metric(
        "process_cpu_seconds_total",
        *("counter", (), "seconds", "Time on the CPU."),
        "Near 1 a second in the front end: that is the bottleneck.",
    ),
    Metric(
        "process_max_fds",
        *("gauge", (), "descriptors", "Files and connections that may be open."),
        "Near the open ones, connections are refused.",
    ),
    Metric(
        "process_open_fds",
        *("gauge", (), "descriptors", "Files and connections that are open."),
        "One for each client's connection.",
    ),
    Metric(
        "process_resident_memory_bytes",
        *("gauge", (), "bytes", "Memory in use."),
        "Grows for hours, or nears the container's limit: it will be killed.",
    ),
    Metric(
        "process_start_time_seconds",
        *("gauge", (), "seconds since 1970", "When it was started."),
        "A restart; the log before it says why.",
    ),
    Metric(
        "process_virtual_memory_bytes",
        *("gauge", (), "bytes", "Addresses in use, files that are mapped among them."),
        "Says little.",
    ),
)


def page() -> str:
    """Return the page."""
    made = sorted(ServerMetrics(CollectorRegistry(), "m", ()).made, key=lambda metric: metric.name)
    lines = [
        _BEFORE,
        *(*_HEAD, *map(_row, made)),
        "\n## Labels\n",
        *("| label | values |", "|---|---|", *_label_rows(made)),
        "\n## Processes\n",
        _PROCESSES,
        *(*_HEAD, *map(_row, _OF_PROCESSES)),
    ]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    cells = f"`{metric.name}`", metric.kind, labels, metric.unit, metric.meaning, metric.advice
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _label_rows(made: Iterable[Metric]) -> Iterator[str]:
    used = {label for metric in made for label in metric.labels}
    for name, reasons in _REASONS.items():
        yield f"| `reason` of `{name}` | {_values(reasons)} |"
    for label in sorted(used - {"reason"}):
        yield f"| `{label}` | {_values(_LABELS[label])} |"


def _values(values: _Values) -> str:
    return values if isinstance(values, str) else ", ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    sys.stdout.write(page())
