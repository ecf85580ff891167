"""Times the second question on a picture: what it gains from the first one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
import typer
from checkpoints import checkpoint
from contenders import OurEngine, load_engine
from options import Device, Dtype, Models, Output, Repeats, Threads
from questions import QuestionSource, num_text
from report import RESULTS, Row, show, write
from timing import time_set, track

from skipserve.model.config import ModelConfig

# What the second question's time to its first token should at most be, of the first question's.
TARGET = 1 / 3


def main(
    models: Models = "demo,small",
    dtype: Dtype = "bfloat16",
    device: Device = "cpu",
    repeats: Repeats = 20,
    threads: Threads = 1,
    output: Output = RESULTS / "reuse.json",
) -> None:
    """Time the first token of a first and of a second question on each of many pictures."""
    torch.set_num_threads(threads)
    rows: list[Row] = []
    for model in models.split(","):
        with checkpoint(model) as folder:
            engine = load_engine(folder, torch.device(device), getattr(torch, dtype))
            source = QuestionSource(ModelConfig.from_folder(folder), seed=0)
        medians = second_question_seconds(
            OurEngine(engine), source, num_text(model), repeats, model
        )
        rows += _rows(f"{Path(model).name}/{dtype}", *medians)
    show(rows)
    write("reuse", rows, sys.argv[1:], output)


def second_question_seconds(
    ours: OurEngine,
    source: QuestionSource,
    num_text: int,
    repeats: int,
    title: str | None = None,
) -> tuple[float, float]:
    """Return the median seconds to the first token of first and of second questions."""
    pairs = []
    for _ in track(repeats + 1, title):
        picture = source.picture()
        questions = [source.question(num_text, 1, picture=picture) for _ in range(2)]
        pairs.append([time_set(ours, [question]).first_token_seconds for question in questions])
    first, second = (median(times) for times in zip(*pairs[1:], strict=True))
    return first, second


def _rows(name: str, first: float, second: float) -> Iterator[Row]:
    """Yield medians and their ratio."""
    yield Row(f"{name}/first token/first question", 1000 * first, "ms")
    yield Row(f"{name}/first token/second question", 1000 * second, "ms")
    yield Row(f"{name}/first token/second over first", second / first, "x", TARGET, is_limit=True)


if __name__ == "__main__":
    typer.run(main)
