"""Times our engine against transformers' `generate`: one request at a time, turn by turn."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from checkpoints import checkpoint
from contenders import Contender, OurEngine, Question, Timing, Transformers, time_one
from report import RESULTS, Row, show, write
from rich.console import Console
from rich.progress import Progress
from transformers.utils.logging import disable_progress_bar

from skipserve.model.config import ModelConfig

# How many times as fast as transformers we want to be at least, in the total time of a request.
TARGETS = {("small", "bfloat16"): 1.0, ("demo", "bfloat16"): 1.5}

# Text tokens of the prompt; with the picture's, 299 for the small model and 54 for the demo.
NUM_TEXT = {"small": 43}
NUM_TEXT_ELSE = 18

_MEASURES = {
    "first token": "first_token_seconds",
    "per token": "per_token_seconds",
    "total": "total_seconds",
    "CPU": "cpu_seconds",
}

Timings = dict[str, list[Timing]]


def main(
    models: Annotated[str, typer.Option(help="demo, small, or folders; commas between.")] = (
        "demo,small"
    ),
    dtypes: Annotated[str, typer.Option(help="bfloat16, float32; commas between.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="As torch names it.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Timed requests of each.")] = 10,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens of an answer.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="Of torch; two on busy cores are slow.")] = 1,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = RESULTS / "end_to_end.json",
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
    """Time both in turn, after one request each that is not counted."""
    where, kind = torch.device(device), getattr(torch, dtype)
    question = Question.draw(
        ModelConfig.from_folder(folder), NUM_TEXT.get(model, NUM_TEXT_ELSE), new_tokens
    )
    contenders: dict[str, Contender] = {
        "skipserve": OurEngine(folder, where, kind),
        "transformers": Transformers(folder, where, kind),
    }
    timings: Timings = {name: [] for name in contenders}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for turn in progress.track(range(repeats + 1), description=f"{model} {dtype}"):
            for name, contender in contenders.items():
                timing = time_one(contender, question)
                if turn > 0:
                    timings[name].append(timing)
    return timings


def _rows(name: str, timings: Timings, target: float | None) -> Iterator[Row]:
    """Yield medians, and how many times as fast we are; the target is for the total."""
    for measure, field in _MEASURES.items():
        ours, theirs = (_median(timings[who], field) for who in ("skipserve", "transformers"))
        yield Row(f"{name}/{measure}/skipserve", 1000 * ours, "ms")
        yield Row(f"{name}/{measure}/transformers", 1000 * theirs, "ms")
        yield Row(
            f"{name}/{measure}/times as fast",
            theirs / ours,
            "x",
            target if measure == "total" else None,
        )
    yield Row(f"{name}/equal tokens", 100 * _agreement(timings), "%")


def _median(timings: Sequence[Timing], field: str) -> float:
    return float(median(getattr(timing, field) for timing in timings))


def _agreement(timings: Timings) -> float:
    """Return the share of the answer up to the first token that differs."""
    ours, theirs = (timings[who][0].token_ids for who in ("skipserve", "transformers"))
    pairs = list(zip(ours, theirs, strict=True))
    equal = next((i for i, pair in enumerate(pairs) if pair[0] != pair[1]), len(pairs))
    return equal / len(pairs)


if __name__ == "__main__":
    typer.run(main)
