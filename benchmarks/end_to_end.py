"""Times our engine against transformers' `generate`: one request at a time, turn by turn."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from checkpoints import checkpoint
from contenders import OurEngine, Transformers, load_engine
from options import Device, Models, Output, Repeats, Threads
from questions import QuestionSource, num_text
from report import RESULTS, Row, show, write
from timing import Timings, agreement, median_of, take_turns
from transformers.utils.logging import disable_progress_bar

from skipserve.model.config import ModelConfig

# How many times as fast as transformers we want to be at least, in the total time of a request.
TARGETS = {("small", "bfloat16"): 1.0, ("demo", "bfloat16"): 1.5}

_MEASURES = {
    "first token": "first_token_seconds",
    "per token": "per_token_seconds",
    "total": "seconds",
    "CPU": "cpu_seconds",
}


def main(
    models: Models = "demo,small",
    dtypes: Annotated[str, typer.Option(help="bfloat16, float32; commas between.")] = "bfloat16",
    device: Device = "cpu",
    repeats: Repeats = 10,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens of an answer.")] = 16,
    threads: Threads = 1,
    output: Output = RESULTS / "end_to_end.json",
) -> None:
    """Time our engine against transformers' `generate`: batch 1, same weights, same request."""
    torch.set_num_threads(threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    rows: list[Row] = []
    for model in models.split(","):
        for dtype in dtypes.split(","):
            with checkpoint(model) as folder:
                timings = _duel(folder, model, device, dtype, repeats, new_tokens)
            rows += _rows(f"{Path(model).name}/{dtype}", timings, TARGETS.get((model, dtype)))
    show(rows)
    write("end_to_end", rows, sys.argv[1:], output)


def _duel(
    folder: Path, model: str, device: str, dtype: str, repeats: int, new_tokens: int
) -> Timings:
    """Time both in turn, on a new question in each turn."""
    where, kind = torch.device(device), getattr(torch, dtype)
    source = QuestionSource(ModelConfig.from_folder(folder), seed=0)
    return take_turns(
        {
            "skipserve": OurEngine(load_engine(folder, where, kind)),
            "transformers": Transformers(Transformers.load(folder, where, kind)),
        },
        lambda: [source.question(num_text(model), new_tokens)],
        repeats,
        f"{model} {dtype}",
    )


def _rows(name: str, timings: Timings, target: float | None) -> Iterator[Row]:
    """Yield medians, and how many times as fast we are; the target is for the total."""
    for measure, field in _MEASURES.items():
        ours, theirs = (median_of(timings[who], field) for who in ("skipserve", "transformers"))
        yield Row(f"{name}/{measure}/skipserve", 1000 * ours, "ms")
        yield Row(f"{name}/{measure}/transformers", 1000 * theirs, "ms")
        yield Row(
            f"{name}/{measure}/times as fast",
            theirs / ours,
            "x",
            target if measure == "total" else None,
        )
    yield Row(
        f"{name}/equal tokens", 100 * agreement(timings["skipserve"], timings["transformers"]), "%"
    )


if __name__ == "__main__":
    typer.run(main)
