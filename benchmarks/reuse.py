"""Times the second question on a picture: what it gains from the first one."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from checkpoints import checkpoint
from contenders import OurEngine, load_engine
from questions import Question, QuestionSource, num_text
from report import RESULTS, Row, show, write
from timing import time_set, track

from skipserve.model.config import ModelConfig

# What the second question's time to its first token should at most be, of the first question's.
TARGET = 1 / 3


def main(
    models: Annotated[str, typer.Option(help="demo, small, or folders; commas between.")] = (
        "demo,small"
    ),
    dtype: Annotated[str, typer.Option(help="As torch names it.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="As torch names it.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Timed pairs of questions.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Of torch; two on busy cores are slow.")] = 1,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = RESULTS / "reuse.json",
) -> None:
    """Time the first token of a first and of a second question on each of many pictures."""
    torch.set_num_threads(threads)
    rows: list[Row] = []
    for model in models.split(","):
        with checkpoint(model) as folder:
            engine = load_engine(folder, torch.device(device), getattr(torch, dtype))
            source = QuestionSource(ModelConfig.from_folder(folder), seed=0)
        pairs = _time_pairs(OurEngine(engine), source, num_text(model), repeats, model)
        rows += _rows(f"{Path(model).name}/{dtype}", pairs)
    show(rows)
    write("reuse", rows, sys.argv[1:], output)


def _time_pairs(
    ours: OurEngine, source: QuestionSource, num_text: int, repeats: int, title: str
) -> list[tuple[float, float]]:
    """Return the seconds to the first token of each first and second question."""
    pairs = []
    for _ in track(repeats + 1, title):
        picture = source.picture()
        questions = [source.question(num_text, 1, picture=picture) for _ in range(2)]
        first, second = (_first_token_seconds(ours, question) for question in questions)
        pairs.append((first, second))
    return pairs[1:]


def _first_token_seconds(ours: OurEngine, question: Question) -> float:
    return time_set(ours, [question]).first_token_seconds


def _rows(name: str, pairs: Sequence[tuple[float, float]]) -> Iterator[Row]:
    """Yield medians and their ratio."""
    first, second = (median(times) for times in zip(*pairs, strict=True))
    yield Row(f"{name}/first token/first question", 1000 * first, "ms")
    yield Row(f"{name}/first token/second question", 1000 * second, "ms")
    yield Row(f"{name}/first token/second over first", second / first, "x", TARGET, is_limit=True)


if __name__ == "__main__":
    typer.run(main)
