"""Measures why a policy's time differs from its FLOPs: steps of the engine, split into parts.

Seconds are the processor's for this thread: others on the same machine disturb these little.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from options import Device, Dtype, Models, Output, Repeats, Threads
from questions import Question, QuestionSource
from report import RESULTS, grid, installed, origin, provenance, put_in_readme, save, show
from splitting.assembling import Run, all_figures
from splitting.figures import Found, Policies, as_rows
from splitting.page import write_page
from splitting.parts import Stage
from splitting.subject import Subject
from splitting.trace import Profiled, read_events, split
from splitting.watched import WatchedEngine
from timing import track
from torch.profiler import ProfilerActivity, profile

RECORD = RESULTS / "time_split.json"
POLICIES = (
    "visual-freeze-from-16",
    "visual-ffn-skip-from-16",
    "visual-attention-skip-from-16",
    "skip-block-every-3-from-16-all",
    "fastv-192",
    "divprune-192",
)


def main(
    models: Models = "demo,small,deep",
    names: Annotated[str, typer.Option(help="Policies besides full; commas between.")] = ",".join(
        POLICIES
    ),
    device: Device = "cpu",
    dtype: Dtype = "bfloat16",
    repeats: Repeats = 8,
    threads: Threads = 1,
    output: Output = RECORD,
) -> None:
    """Split the steps of each policy into parts; the run for the record also writes the page."""
    torch.set_num_threads(threads)
    policies = list(dict.fromkeys(["full", *names.split(",")]))
    found: dict[tuple[str, Stage], Policies] = {}
    about = {}
    for name in models.split(","):
        subject = Subject.load(name, torch.device(device), getattr(torch, dtype))
        runs = measure(subject, policies, repeats)
        found |= {(name, stage): all_figures(subject, runs, stage) for stage in Stage}
        about[name] = subject.as_json()
    _write(found, about, output)


def measure(subject: Subject, policies: Sequence[str], repeats: int) -> dict[str, list[Run]]:
    """Return the turns of each policy; the policies take turns, and a first turn does not count."""
    engine = WatchedEngine(subject.model)
    source = QuestionSource(subject.model.config, seed=0)
    turns = [
        {policy: _run(engine, partial(subject.questions, source, policy)) for policy in policies}
        for _ in track(repeats + 1, f"{subject.name}, {subject.num_requests} at a time")
    ]
    return {policy: [turn[policy] for turn in turns[1:]] for policy in policies}


def _run(engine: WatchedEngine, draw: Callable[[], list[Question]]) -> Run:
    plain = engine.answer(draw())
    questions = draw()
    kinds = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as found:
        watched = engine.answer(questions)
    events, on_device = read_events(found)
    return Run(plain, watched, Profiled.of(split(events, on_device=on_device)))


def _write(found: Found, about: Mapping[str, Mapping[str, float]], file: Path) -> None:
    """Write the record; the one that is kept also goes into the README and makes the page."""
    rows = list(as_rows(found))
    shares = [row for row in rows if row.unit == "%"]
    show(shares)
    record = provenance("time_split", sys.argv[1:], installed(("skipserve", "torch")))
    save(record | {"models": about, "rows": [row.as_json() for row in rows]}, file)
    if file == RECORD:
        put_in_readme("time_split", [origin(record), "", *grid(shares)])
        write_page(file)


if __name__ == "__main__":
    typer.run(main)
