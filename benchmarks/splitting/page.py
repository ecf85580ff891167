"""Writes docs/time-and-flops.md of the records: `make time-page`."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from report import RESULTS, format_value, origin
from splitting.figures import Figures, Policies, compare, error_of_controls, from_record, sentence
from splitting.parts import MEANING, Part, Stage

RECORD = RESULTS / "time_split.json"
GPU_RECORD = RESULTS / "time_split_gpu.json"
PAGE = Path(__file__).parents[2] / "docs/time-and-flops.md"

Record = Mapping[str, Any]

_HEAD = """\
# Why time differs from FLOPs

[Skipping Computations in Multimodal LLMs](https://arxiv.org/abs/2410.09454) counts what is skipped
in FLOPs, and leaves open what of it shows in time. Here steps of the engine are split into parts,
under some policies. The record, and how it was measured, are those of
[`benchmarks/time_split.py`](../benchmarks/README.md#time_split-why-does-time-differ-from-flops);
`make time-page` writes this page from it, the sentences too.

If time followed FLOPs, a policy that needs 80 % of the FLOPs of `full` would take 80 % of its time.
What it takes beyond that is parted among the parts, in points of the time of `full`, so that they
sum to it. A part of the language model is held to the share that the model's own FLOPs promise. The
picture, which most policies leave as it is, is held to what it takes under `full`; where that is
more time a FLOP than the whole takes, what is saved elsewhere shows less, and that is put down to
the picture too.

A difference under two points, or within `give or take`, counts as none. Nor does one that is within
what policies show that compute in these steps just what `full` does: those for the picture's rows,
where all requests decode, are the control of the measurement.

| part | what it holds |
|---|---|
{parts}
"""

_UNMEASURED = """\
## On a GPU

Unmeasured: there is no record of a GPU yet. Its profile fills the same parts: kernels go to them by
a table of their own, the sampler's too; calls are the waits between the kernels of a forward that
is told launch by launch; and the host is the rest of a step.
"""

_STEPS = {
    Stage.PROMPT: "the step that computes the prompts",
    Stage.DECODE: "a step in which all requests decode",
}


def render(record: Record, on_gpu: Record | None = None) -> str:
    """Return the page of a record of a CPU, and of one of a GPU where there is one."""
    parts = "\n".join(f"| {part} | {MEANING[part]} |" for part in Part)
    return "\n".join([_HEAD.format(parts=parts), *_device("On a CPU", record), *_gpu(on_gpu)])


def write_page(record: Path = RECORD, page: Path = PAGE) -> None:
    """Write the page of a record, and of the GPU's beside it where there is one."""
    beside = record.with_name(GPU_RECORD.name)
    on_gpu = json.loads(beside.read_text("utf-8")) if beside.exists() else None
    page.write_text(render(json.loads(record.read_text("utf-8")), on_gpu), "utf-8")


def _gpu(record: Record | None) -> Iterator[str]:
    if record is None:
        yield _UNMEASURED
    else:
        yield from _device("On a GPU", record)


def _device(title: str, record: Record) -> Iterator[str]:
    yield from (f"## {title}", "", origin(record), "")
    for (model, stage), policies in from_record(record).items():
        about = record["models"][model]
        requests = "one request" if about["requests"] == 1 else f"{about['requests']} requests"
        yield from (f"### `{model}`: {_STEPS[stage]}, {requests} at a time", "")
        yield from _sentences(policies)
        yield from ("", *_table(policies), "")
        if stage is Stage.DECODE:
            yield from (*_footnotes(about, from_record(record), model), "")


def _sentences(policies: Policies) -> Iterator[str]:
    full, error = policies["full"], error_of_controls(policies)
    for policy, figures in policies.items():
        if policy != "full":
            yield f"- `{policy}`: {sentence(compare(figures, full), error)}"


def _table(policies: Policies) -> Iterator[str]:
    """Yield milliseconds by part and policy."""
    parts = [part for part in Part if any(_shows(it, part) for it in policies.values())]
    yield f"| ms | {' | '.join(parts)} | whole | FLOPs | time | give or take |"
    yield "|---|" + "---:|" * (len(parts) + 4)
    full = policies["full"]
    for policy, figures in policies.items():
        found = compare(figures, full)
        cells = [format_value(figures.parts[part]) for part in parts]
        cells += [format_value(figures.milliseconds), f"{100 * found.flops:.0f} %"]
        cells += [f"{100 * found.time:.0f} %", f"{figures.noise:.1f} %"]
        yield f"| `{policy}` | {' | '.join(cells)} |"


def _shows(figures: Figures, part: Part) -> bool:
    return figures.parts[part] > 0


def _footnotes(about: Mapping[str, float], found: Mapping[Any, Policies], model: str) -> list[str]:
    profiles = [
        figures.profile
        for (name, _), policies in found.items()
        if name == model
        for figures in policies.values()
    ]
    bandwidth = format_value(about["bandwidth_bytes_per_second"] / 1e9)
    return [
        f"Weights were taken to be read at {bandwidth} GB/s, as their bytes were in this run.",
        "By the profiler, less its own cost, forwards took",
        f"{min(profiles):.0f} to {max(profiles):.0f} % of what they take without it, to which the",
        "parts are scaled.",
    ]


if __name__ == "__main__":
    write_page(*map(Path, sys.argv[1:]))
