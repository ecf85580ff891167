"""Measures whether a batch that mixes policies is as fast as its parts let expect."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import torch
import typer
from checkpoints import checkpoint
from contenders import OurEngine, load_engine
from options import Dtype, Model, Output, Repeats, Threads
from plans import FOUR_POLICIES
from questions import QuestionSource, num_text
from report import RESULTS, Row, show, write
from timing import time_set, track

from skipserve.engine.reports import StepReport
from skipserve.model.config import ModelConfig

NUM_NEW_TOKENS = 16

# What share of the predicted throughput a mixed batch should have at least, in percent.
TARGET = 95.0

MIXED = "mixed"


@dataclass(frozen=True)
class Alone:
    """What batches of one policy take, in seconds.

    Attributes:
        quarter: with a quarter of the requests.
        whole: with all of them.
    """

    quarter: float
    whole: float

    @property
    def rows_of_quarter(self) -> float:
        """The part that grows with the requests, for a quarter of them."""
        return (self.whole - self.quarter) / 3

    @property
    def fixed(self) -> float:
        """The part that does not: above all, reading the weights of the layers that run."""
        return self.quarter - self.rows_of_quarter


def predict(alone: Mapping[str, Alone]) -> float:
    """Return what a quarter each of four policies should take together, in seconds.

    The layers that any of them runs are those of `full`, so their fixed part is paid once.
    """
    return alone["full"].fixed + sum(times.rows_of_quarter for times in alone.values())


def main(
    model: Model = "demo",
    dtype: Dtype = "bfloat16",
    concurrency: Annotated[int, typer.Option(min=4, help="Requests, a multiple of four.")] = 32,
    repeats: Repeats = 10,
    threads: Threads = 1,
    output: Output = RESULTS / "mixed.json",
) -> None:
    """Time four policies alone and together, turn by turn."""
    torch.set_num_threads(threads)
    with checkpoint(model) as folder:
        source = QuestionSource(ModelConfig.from_folder(folder), seed=0)
        engine = load_engine(folder, torch.device("cpu"), getattr(torch, dtype))
    batches = make_batches(concurrency // 4)
    ours = OurEngine(engine, concurrency)
    turns = [
        {name: _measure(ours, source, num_text(model), batch) for name, batch in batches.items()}
        for _ in track(repeats + 1, f"{model}, {concurrency} at a time")
    ]
    rows = [
        row
        for number, measure in enumerate(("decode step", "whole requests"))
        for row in _rows(measure, _medians(turns[1:], number))
    ]
    show(rows)
    write("mixed", rows, sys.argv[1:], output)


def make_batches(quarter: int) -> dict[str, list[str]]:
    """Return the policy of each request, by the name of the batch."""
    quarters = {f"{policy}, a quarter": [policy] * quarter for policy in FOUR_POLICIES}
    wholes = {f"{policy}, all": [policy] * quarter * 4 for policy in FOUR_POLICIES}
    return {**quarters, **wholes, MIXED: list(FOUR_POLICIES) * quarter}


def _measure(
    ours: OurEngine, source: QuestionSource, num_text: int, batch: Sequence[str]
) -> tuple[float, float]:
    """Return the seconds of a decode step, in the median, and of the whole batch."""
    questions = [source.question(num_text, NUM_NEW_TOKENS, policy=policy) for policy in batch]
    seconds = time_set(ours, questions).seconds
    return decode_step_seconds(ours.reports, len(batch)), seconds


def decode_step_seconds(reports: Sequence[StepReport], num_sequences: int) -> float:
    """Return the median of the steps in which all requests take part with one row each."""
    return median(
        report.seconds
        for report in reports
        if report.num_rows == report.num_sequences == num_sequences
    )


def _medians(turns: Sequence[Mapping[str, tuple[float, float]]], number: int) -> dict[str, float]:
    """Return the median over the turns of one of the two figures, by batch."""
    return {name: median(turn[name][number] for turn in turns) for name in turns[0]}


def _rows(measure: str, seconds: Mapping[str, float]) -> Iterator[Row]:
    """Yield the times, the prediction, and how much of the predicted throughput there is."""
    for name, taken in seconds.items():
        yield Row(f"{measure}/{name}", 1000 * taken, "ms")
    alone = {
        policy: Alone(seconds[f"{policy}, a quarter"], seconds[f"{policy}, all"])
        for policy in FOUR_POLICIES
    }
    predicted = predict(alone)
    yield Row(f"{measure}/{MIXED}, predicted", 1000 * predicted, "ms")
    share = 100 * predicted / seconds[MIXED]
    yield Row(f"{measure}/share of the predicted throughput", share, "%", TARGET)


if __name__ == "__main__":
    typer.run(main)
