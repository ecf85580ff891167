"""Times what the host does in a step of many decoding requests, beside the model's arithmetic."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Annotated, TypeVar

import numpy as np
import torch
import typer
from checkpoints import checkpoint
from contenders import make_request
from instant_model import InstantModel
from options import Output
from plans import FOUR_POLICIES
from questions import QuestionSource
from report import RESULTS, Row, show, write
from timing import track

from skipserve.engine.engine import Engine, StepResult
from skipserve.engine.largest import argmax
from skipserve.engine.limits import EngineLimits
from skipserve.engine.request import Request, SamplingParams
from skipserve.model.config import ModelConfig
from skipserve.service.process import keep_freed_memory

# Milliseconds of a step, at most.
TARGET = 1.5

# Decode steps before the timed ones.
NUM_WARM_UP = 20


T = TypeVar("T")

# Text tokens of the shortest and the longest prompt.
NUM_TEXT = (18, 264)


@dataclass(frozen=True)
class Case:
    """One kind of batch.

    Attributes:
        name: of its rows.
        drawn_every: one in so many requests is drawn at random, the others are greedy; None for
            greedy ones alone.
        vocab_size: columns of the logits; None for the model's.
        target: for the median, in milliseconds.
    """

    name: str
    drawn_every: int | None = None
    vocab_size: int | None = None
    target: float | None = None


CASES = (
    Case("half greedy, half drawn", drawn_every=2, target=TARGET),
    Case("all greedy", target=TARGET),
    Case("all greedy, 32064 tokens", vocab_size=32064),
)


def main(
    model: Annotated[str, typer.Option(help="Whose sizes: demo, small, or a folder.")] = "demo",
    sequences: Annotated[int, typer.Option(min=4, help="Requests that decode.")] = 256,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps.")] = 200,
    output: Output = RESULTS / "host_cost.json",
) -> None:
    """Time decode steps of an engine whose model answers at once: four plans, one core."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as the engine's process does
    with checkpoint(model) as folder:
        config = ModelConfig.from_folder(folder)
    rows: list[Row] = []
    for case in CASES:
        instant = InstantModel(config, sequences, case.vocab_size)
        rows += _rows(case, *_time_case(case, instant, steps))
    show(rows)
    write("host_cost", rows, sys.argv[1:], output)


def _time_case(case: Case, model: InstantModel, steps: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of the steps, and of as many times the argmax in them."""
    num_sequences = len(model.logits)
    limits = EngineLimits(
        max_running=num_sequences,
        kv_cache_bytes=num_sequences * model.config.max_positions * model.cache_bytes_per_token(),
    )
    engine = Engine(model, limits)
    for request in make_requests(model.config, num_sequences, case.drawn_every):
        engine.add(request)
    while not is_decode_step(engine.step(), num_sequences):
        pass
    step_times = []
    for milliseconds, result in _timed(engine.step, steps, case.name):
        assert is_decode_step(result, num_sequences)
        step_times.append(milliseconds)
    argmax_times = [
        milliseconds for milliseconds, _ in _timed(lambda: argmax(model.logits), steps, "argmax")
    ]
    return step_times, argmax_times


def make_requests(
    config: ModelConfig, num_requests: int, drawn_every: int | None
) -> Iterator[Request]:
    """Yield requests of four policies and prompts of many lengths, all with one long answer."""
    source = QuestionSource(config, seed=0)
    for number in range(num_requests):
        question = source.question(
            source.number(*NUM_TEXT), 1, policy=FOUR_POLICIES[number % len(FOUR_POLICIES)]
        )
        request = make_request(question)
        # Policies and ways of choosing are not to go hand in hand.
        is_drawn = drawn_every is not None and number // len(FOUR_POLICIES) % drawn_every == 0
        sampling = SamplingParams(
            max_tokens=config.max_positions - request.num_prompt,
            temperature=0.7 if is_drawn else 0.0,
            top_p=0.9 if is_drawn else 1.0,
            seed=number,
            ends_at_eos=False,
        )
        yield replace(request, sampling=sampling)


def is_decode_step(result: StepResult, num_sequences: int) -> bool:
    """Return whether all requests took part with one row each, and none ended."""
    report = result.report
    return (
        report is not None
        and report.num_rows == report.num_sequences == num_sequences
        and all(output.finish_reason is None for output in result.outputs)
    )


def _timed(work: Callable[[], T], count: int, title: str) -> Iterator[tuple[float, T]]:
    """Yield the milliseconds and the result of some work, after a few times that do not count."""
    for number in track(count + NUM_WARM_UP, title):
        start = perf_counter()
        result = work()
        milliseconds = 1000 * (perf_counter() - start)
        if number >= NUM_WARM_UP:
            yield milliseconds, result


def _rows(case: Case, steps: Sequence[float], argmaxes: Sequence[float]) -> Iterator[Row]:
    """Yield the median and the 99th percentile, and the median without the argmax."""
    p50, p99 = np.percentile(steps, [50, 99]).tolist()
    yield Row(f"{case.name}/p50", p50, "ms", case.target, is_limit=True)
    yield Row(f"{case.name}/p99", p99, "ms")
    if case.vocab_size is not None:
        rest = p50 - median(argmaxes)
        yield Row(f"{case.name}/p50 without argmax", rest, "ms")


if __name__ == "__main__":
    typer.run(main)
