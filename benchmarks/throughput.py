"""Times our engine against transformers' `generate` on many requests at once."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from checkpoints import checkpoint
from contenders import OurEngine, Transformers, load_engine
from openvino_peer import OpenVino
from options import Device, Dtype, Models, Output, Repeats, Threads
from questions import Question, QuestionSource, num_text
from report import RESULTS, Row, show, write
from timing import Contender, Timings, agreement, median_of, take_turns
from transformers.utils.logging import disable_progress_bar

from skipserve.engine.engine import Engine
from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve_kernels.plain.linear import int8

# Requests at a time.
CONCURRENCY = {"small": 8}
CONCURRENCY_ELSE = 16

NUM_NEW_TOKENS = 16

OPENVINO, OPENVINO_INT8 = "OpenVINO GenAI", "OpenVINO GenAI, int8"
OURS, OURS_INT8 = "skipserve", "skipserve, int8"
# Those that are asked in other words, so that their answers are others.
_IN_OTHER_WORDS = (OPENVINO, OPENVINO_INT8)

# How many times as fast as a rival we want to be at least, at the usual concurrency.
TARGETS = {
    ("small", "bfloat16", "alike", "static batch"): 1.6,
    ("demo", "bfloat16", "alike", "one by one"): 4.0,
}

# Gives a turn's questions, of a source and with so many text tokens, for so many at a time.
Way = Callable[[QuestionSource, int, int], list[Question]]


def _alike(source: QuestionSource, num_text: int, concurrency: int) -> list[Question]:
    """All of one shape, each on a picture of its own: a static batch wastes nothing."""
    return [source.question(num_text, NUM_NEW_TOKENS) for _ in range(concurrency)]


def _varied(source: QuestionSource, num_text: int, concurrency: int) -> list[Question]:
    """Questions and answers as long as those of visual question answering, two batches of them."""
    return [
        source.question(source.number(10, 60), source.number(1, 16)) for _ in range(2 * concurrency)
    ]


def _four_each(source: QuestionSource, num_text: int, concurrency: int) -> list[Question]:
    """Four questions on each picture, all of one shape."""
    pictures = [source.picture() for _ in range(concurrency // 4)]
    return [
        source.question(num_text, NUM_NEW_TOKENS, picture=picture)
        for picture in pictures
        for _ in range(4)
    ]


WAYS: dict[str, Way] = {"alike": _alike, "varied": _varied, "four each": _four_each}


def main(  # noqa: PLR0913, PLR0917 (an argument a flag)
    models: Models = "demo,small",
    dtype: Dtype = "bfloat16",
    device: Device = "cpu",
    concurrency: Annotated[
        int | None, typer.Option(help="Requests at a time; else 8 for small, 16 for others.")
    ] = None,
    repeats: Repeats = 5,
    threads: Threads = 1,
    openvino_python: Annotated[
        Path | None, typer.Option(help="Time OpenVINO GenAI too, which this Python has.")
    ] = None,
    output: Output = RESULTS / "throughput.json",
) -> None:
    """Time many requests at once: all alike, of varied lengths, four to a picture."""
    torch.set_num_threads(threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    rows: list[Row] = []
    versions: dict[str, str] = {}
    for model in models.split(","):
        with ExitStack() as stack:
            folder = stack.enter_context(checkpoint(model))
            size = concurrency or CONCURRENCY.get(model, CONCURRENCY_ELSE)
            where, kind = torch.device(device), getattr(torch, dtype)
            # One by one, the small model would take minutes.
            contenders = _contenders(folder, where, kind, size, one_by_one=model != "small")
            if openvino_python is not None:
                for name, weights in ((OPENVINO, "fp16"), (OPENVINO_INT8, "int8")):
                    peer = OpenVino.start(openvino_python, folder, size, threads, weights)
                    contenders[name] = openvino = stack.enter_context(peer)
                    versions["openvino-genai"] = openvino.version
            sources = _sources(ModelConfig.from_folder(folder), num_text(model), size)
            for way, draw in sources.items():
                timings = take_turns(contenders, draw, repeats, f"{model} {way}")
                wanted = {} if concurrency else targets(model, dtype, way)
                rows += _rows(f"{Path(model).name}/{dtype}", way, timings, wanted)
    show(rows)
    write("throughput", rows, sys.argv[1:], output, versions=versions)


def _contenders(
    folder: Path, device: torch.device, dtype: torch.dtype, concurrency: int, one_by_one: bool
) -> dict[str, Contender]:
    """Load a checkpoint for all."""
    theirs = Transformers.load(folder, device, dtype)
    contenders: dict[str, Contender] = {
        OURS: OurEngine(load_engine(folder, device, dtype), concurrency),
        "static batch": Transformers(theirs, concurrency),
    }
    if device.type == "cpu" and int8.is_exact():
        rounded = Llava.load(folder, device, dtype, in_8_bits=True)
        contenders[OURS_INT8] = OurEngine(Engine(rounded), concurrency)
    if one_by_one:
        contenders["one by one"] = Transformers(theirs)
    return contenders


def _sources(
    config: ModelConfig, num_text: int, concurrency: int
) -> dict[str, Callable[[], list[Question]]]:
    """Return what gives the questions of each way; no way sees the pictures of another."""
    return {
        way: partial(draw, QuestionSource(config, seed), num_text, concurrency)
        for seed, (way, draw) in enumerate(WAYS.items())
    }


def targets(*match: str) -> dict[str, float]:
    """Return the targets of a model, dtype and way, by rival."""
    return {rival: target for (*key, rival), target in TARGETS.items() if tuple(key) == match}


def _rows(name: str, way: str, timings: Timings, wanted: Mapping[str, float]) -> Iterator[Row]:
    """Yield medians, and how many times as fast we are."""
    num_requests = len(timings[OURS][0].answers)
    for who, sets in timings.items():
        rate = num_requests / median_of(sets, "seconds")
        yield Row(f"{name}/{way}/throughput/{who}", rate, "requests/s")
    for who, sets in timings.items():
        cpu = 1000 * median_of(sets, "cpu_seconds") / num_requests
        yield Row(f"{name}/{way}/CPU per request/{who}", cpu, "ms")
    ours = timings[OURS]
    for rival in list(timings)[1:]:
        ratio = median_of(timings[rival], "seconds") / median_of(ours, "seconds")
        yield Row(f"{name}/{way}/times as fast/as {rival}", ratio, "x", wanted.get(rival))
        if rival not in _IN_OTHER_WORDS:
            equal = 100 * agreement(ours, timings[rival])
            yield Row(f"{name}/{way}/equal tokens/with {rival}", equal, "%")
    if OURS_INT8 in timings:
        ours = timings[OURS_INT8]
        for rival in (OURS, OPENVINO, OPENVINO_INT8):
            if rival in timings:
                ratio = median_of(timings[rival], "seconds") / median_of(ours, "seconds")
                yield Row(f"{name}/{way}/times as fast, int8/as {rival}", ratio, "x")


if __name__ == "__main__":
    typer.run(main)
