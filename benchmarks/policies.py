"""Measures what each skip policy gains in requests per second, at several concurrencies.

Seconds are the process's own, of its arithmetic: others on the same machine disturb these little.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated

import torch
import typer
from checkpoints import checkpoint
from contenders import OurEngine, load_engine
from options import Dtype, Model, Output, Repeats, Threads
from plans import policies_for
from questions import QuestionSource, flops_ratio, num_text
from report import RESULTS, Row, grid, show, write
from speedup_picture import Speedups, draw
from timing import median_in_turns, time_set

from skipserve.engine.engine import Engine
from skipserve.model.config import ModelConfig
from skipserve_policies.sizes import ModelSizes

NUM_NEW_TOKENS = 10

# Requests of a timed set: as many as run at a time, but not fewer than this.
MIN_REQUESTS = 8

# Median CPU seconds of a set by policy, "full" first.
Seconds = Mapping[str, float]


def main(
    model: Model = "demo",
    names: Annotated[str, typer.Option(help="Policies besides full; commas between.")] = "all",
    concurrencies: Annotated[str, typer.Option(help="Requests at a time.")] = "1,4,16,64",
    dtype: Dtype = "bfloat16",
    repeats: Repeats = 4,
    threads: Threads = 1,
    output: Output = RESULTS / "policies.json",
) -> None:
    """Time each policy of the catalog against the full model, turn by turn."""
    torch.set_num_threads(threads)
    with checkpoint(model) as folder:
        config = ModelConfig.from_folder(folder)
        engine = load_engine(folder, torch.device("cpu"), getattr(torch, dtype))
    policies = _chosen(names, config.sizes)
    seconds = {
        concurrency: _time_all(engine, config, policies, concurrency, model, repeats)
        for concurrency in map(int, concurrencies.split(","))
    }
    ask = partial(QuestionSource(config, seed=0).question, num_text(model), NUM_NEW_TOKENS)
    ratios = {policy: flops_ratio(config.sizes, ask(policy=policy)) for policy in policies}
    speedups = {concurrency: speedups_over_full(found) for concurrency, found in seconds.items()}
    rows = [*_full_rows(seconds), *_rows(ratios, speedups)]
    show(rows)
    write("policies", rows, sys.argv[1:], output, layout=grid)
    draw(ratios, speedups, output.with_suffix(".svg"))


def _chosen(names: str, sizes: ModelSizes) -> list[str]:
    """Return the policies to time, "full" first."""
    chosen = policies_for(sizes) if names == "all" else names.split(",")
    return list(dict.fromkeys(["full", *chosen]))


def _time_all(
    engine: Engine,
    config: ModelConfig,
    policies: Sequence[str],
    concurrency: int,
    model: str,
    repeats: int,
) -> Seconds:
    """Return the median CPU seconds that a set of requests takes, all policies taking turns."""
    source, ours = QuestionSource(config, seed=concurrency), OurEngine(engine, concurrency)

    def measure(policy: str) -> float:
        questions = [
            source.question(num_text(model), NUM_NEW_TOKENS, policy=policy)
            for _ in range(num_requests(concurrency))
        ]
        return time_set(ours, questions).cpu_seconds

    measures = {policy: partial(measure, policy) for policy in policies}
    return median_in_turns(measures, repeats, f"{model}, {concurrency} at a time")


def num_requests(concurrency: int) -> int:
    """Return how many requests a timed set has."""
    return max(concurrency, MIN_REQUESTS)


def speedups_over_full(seconds: Seconds) -> dict[str, float]:
    """Return how many times as fast as the full model each policy is; below 1 it is slower."""
    return {policy: seconds["full"] / taken for policy, taken in seconds.items()}


def _full_rows(seconds: Mapping[int, Seconds]) -> Iterator[Row]:
    for concurrency, found in seconds.items():
        rate = num_requests(concurrency) / found["full"]
        yield Row(f"requests per second of full/at {concurrency}", rate, "1/s")


def _rows(ratios: Mapping[str, float], speedups: Speedups) -> Iterator[Row]:
    for policy, ratio in ratios.items():
        yield Row(f"{policy}/planned FLOPs", ratio, "x")
        for concurrency, found in speedups.items():
            yield Row(f"{policy}/at {concurrency}", found[policy], "x")


if __name__ == "__main__":
    typer.run(main)
