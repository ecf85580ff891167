"""The page about the metrics, docs/metrics.md: `python -m skipserve.metrics.page` prints it."""

import sys
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

from skipserve.metrics.metric import Label, Metric, declared
from skipserve.metrics.table import Metrics, ProcessMetrics, listed
from skipserve.metrics.vllm_names import ALIASES, CACHE_CONFIG

_BEFORE = """\
# Metrics

    curl -s http://127.0.0.1:8000/metrics -H "Authorization: Bearer $KEY"

`/metrics` is in Prometheus' text format. Where `--api-key` is set it wants one of those keys, or
one of `--metrics-api-key`, which opens nothing else; where `--api-keys-file` is, an admin key of
that file, or one of `--metrics-api-key`. This page is made from the code and never
edited: `python -m skipserve.metrics.page > docs/metrics.md`.

Every metric of ours has the label `model`. The other labels are closed sets, so that no client can
make series; a policy without a name is `inline`. Counters begin at 0 when the server starts, those
with the label `skip_policy` with the first request under that policy.
"""
_HEAD = (
    "| metric | type | labels | unit | what it says | what to look at when it moves |",
    "|---|---|---|---|---|---|",
)
_VLLM_NAMES = """\
With `--metric-aliases vllm` the page has these besides, for dashboards, routers and the endpoint
pickers of gateways that read vLLM's names. Each is what stands beside it, summed over all labels
and read at the same moment; all begin at 0, and the buckets are ours. Labels: `model_name` and
`engine`, which is `0`; of `vllm:request_success_total` also `finished_reason`: `stop`, `length`,
`abort`, `error`.
"""
_VLLM_NONE = """\
`vllm:cache_config_info` has the labels `block_size`, `num_gpu_blocks`, `enable_prefix_caching` and
`engine`, and is absent until the model is loaded. What vLLM has besides is not shown, for it is not
measured here or is something else: its prefill, for one, holds the encoding of images, which is a
stage of its own here.
"""
_PROCESSES = """\
The standard ones of a process, on Linux: as named here of the front end, and with the prefix
`skipserve_engine_` of the engine's process, while there is one. The server exits when its engine
dies, so `changes(process_start_time_seconds[1h])` counts its restarts.
"""


def page() -> str:
    """Return the page."""
    metrics = sorted(declared(Metrics), key=attrgetter("name"))
    lines = [
        _BEFORE,
        *_HEAD,
        *map(_row, metrics),
        "\n## Labels\n",
        "| label | values |",
        "|---|---|",
        *_label_rows(metrics),
        "\n## vLLM's names\n",
        _VLLM_NAMES,
        "| vLLM's name | ours |",
        "|---|---|",
        *(f"| `{alias.full_name}` | {alias.said} |" for alias in ALIASES),
        f"| `{CACHE_CONFIG}` | 1; its labels tell of the cache |\n",
        _VLLM_NONE.rstrip(),
        "\n## Processes\n",
        _PROCESSES,
        *_HEAD,
        *map(_row, declared(ProcessMetrics)),
    ]
    return "\n".join(lines) + "\n"


def _row(metric: Metric[Any]) -> str:
    kind = metric.family.__name__.lower()
    labels = ", ".join(f"`{label.name}`" for label in metric.labels)
    cells = f"`{metric.name}`", kind, labels, metric.unit, metric.meaning, metric.advice
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _label_rows(metrics: Iterable[Metric[Any]]) -> Iterator[str]:
    """Yield what each label may say: first of the labels that say one thing here, another there."""
    uses: dict[str, dict[Label, str]] = {}
    for metric in metrics:
        for label in metric.labels:
            uses.setdefault(label.name, {})[label] = f"`{label.name}` of `{metric.name}`"
    for name, of_name in sorted(uses.items(), key=lambda use: (len(use[1]) == 1, use[0])):
        for label, place in of_name.items():
            values = label.values if isinstance(label.values, str) else listed(label.values)
            yield f"| {place if len(of_name) > 1 else f'`{name}`'} | {values} |"


if __name__ == "__main__":
    sys.stdout.write(page())
