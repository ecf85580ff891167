"""Finds launches that would compile in the middle of traffic; as a script, in its own process.

It takes what the traffic is, and writes, as JSON, the launches of which no binary would be there
after the launches of a warm-up. The traffic is "any rows" or "another model", launched one kernel
at a time, or "an engine": steps of mixed plans, after what the engine itself does when it starts.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from children import run
from engine_parts import EngineParts
from fake_decoder import IMAGE_SIZE, NUM_LAYERS, make_request
from kernel_launches import LLAVA_7B, LLAVA_13B, Launches, Rows
from meta_device import MetaWeights
from pydantic import TypeAdapter
from tiny_llava import make_checkpoint
from triton_compile import Launch, Recorder

from skipserve.engine.limits import EngineLimits
from skipserve.engine.plans import NUM_CLASSES
from skipserve.engine.runner import Runner
from skipserve.engine.tables import UNREAD
from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve_kernels.fused.input_projection.packing import Part
from skipserve_kernels.fused.tiles import MAX_FUSED_ROWS
from skipserve_policies.narrowing import Narrowing, Stage
from skipserve_policies.plan import Cell, Ffn, Plan, trim
from skipserve_policies.schema import Dropper

# Of each tile and number of splits; no multiple of 16, of which Triton would make a special case.
WARM_UP_ROWS = (1, 2, 4, 8, 19, 35, 67)
TRAFFIC_ROWS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 80, 1000)

FULL = Plan.full(NUM_LAYERS)
FASTV = Narrowing(Dropper.FASTV, (Stage(1, 2),))
PYRAMID = Narrowing(Dropper.PYRAMIDDROP, (Stage(1, 2), Stage(3, 1)), renumbers=True)


@dataclass(frozen=True, slots=True)
class NewBinary:
    """A binary that only traffic needs.

    Attributes:
        kernel: its function's name.
        rows: of the launch that needs it.
        differences: from the binary of the warm-up that is most alike, by parameter: what that one
            was made for, and this one.
    """

    kernel: str
    rows: str
    differences: dict[str, tuple[str, str]]


_NEW = TypeAdapter(list[NewBinary])


def find_new_binaries(traffic: str) -> list[NewBinary]:
    """Return what traffic would have compiled: "any rows", "another model" or "an engine"."""
    done = run(
        [sys.executable, __file__, traffic],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        stderr=None,
    )
    assert done.returncode == 0, "standard error tells why"
    return _NEW.validate_json(done.stdout)


def _launch_all(launches: Launches, rows: Rows) -> None:
    """Launch every kernel on some rows."""
    for num_targets in (1, 2, 3):
        launches.norm(rows, num_targets)
    for part in Part:
        launches.input(rows, part)
    for part in (Part.QUERY_KEY_VALUE, Part.FFN, Part.ALL):
        launches.output(rows, part, has_bias=True)
    launches.decode(rows)
    if not rows.is_gated:
        launches.input(rows, Part.ALL, is_shared=True)
        launches.prefill(rows)
        launches.scores(rows)


def _warm_up_rows() -> Iterator[Rows]:
    for num, is_gated, is_picked in product(WARM_UP_ROWS, (False, True), (False, True)):
        if num <= MAX_FUSED_ROWS or not is_gated:
            yield Rows(num, is_gated, is_picked)


def _traffic_rows() -> Iterator[Rows]:
    for num, is_gated, is_picked in product(TRAFFIC_ROWS, (False, True), (False, True)):
        if num <= MAX_FUSED_ROWS or not is_gated:
            for others in ((0, 65, 0), (1, 1, 3), (2, 64, 2**30)):
                yield Rows(num, is_gated, is_picked, *others)


def _find(traffic: str) -> list[NewBinary]:
    """Launch the warm-up and the traffic, and compare what they need."""
    needed: dict[tuple[str, ...], tuple[Launch, str]] = {}
    now = "warm-up"

    def note(launch: Launch) -> None:
        key = (launch.name, *launch.arguments, *launch.arguments.values())
        needed.setdefault(key, (launch, now))

    Recorder(90, note, compiles=False)
    phases = _engine_phases() if traffic == "an engine" else _kernel_phases(traffic)
    num_warm = 0
    for now in phases:  # noqa: B007 - `note` reads it
        num_warm = num_warm or len(needed)
    warm = [launch for launch, _ in list(needed.values())[:num_warm]]
    assert len(warm) > 20, "the warm-up launches nothing"
    return [
        NewBinary(launch.name, when, _differences(warm, launch))
        for launch, when in list(needed.values())[num_warm:]
    ]


def _kernel_phases(traffic: str) -> Iterator[str]:
    """Launch kernel by kernel; yield when the warm-up is over, and what comes next."""
    for rows in _warm_up_rows():
        _launch_all(Launches(LLAVA_7B), rows)
    sizes = LLAVA_13B if traffic == "another model" else LLAVA_7B
    for rows in [Rows(8)] if traffic == "another model" else _traffic_rows():
        yield str(rows)
        _launch_all(Launches(sizes), rows)


def _engine_phases() -> Iterator[str]:
    """Start a runner and run steps of mixed plans; yield before each step what it is."""
    with TemporaryDirectory() as folder:
        make_checkpoint(Path(folder), num_layers=NUM_LAYERS, image_size=IMAGE_SIZE, patch_size=2)
        model = Llava.assemble(
            ModelConfig.from_folder(Path(folder)), MetaWeights(), uses_triton=True
        )
    parts = EngineParts(max_rows=100, max_running=90, num_pages=2000)
    limits = EngineLimits(uses_graphs=True)
    runner = Runner(model, parts.tables, parts.plans, parts.pool.num_pages, 50, limits)
    drawn = Random(0)
    plans = [FULL if number % 3 else _draw_plan(drawn) for number in range(150)]
    narrowings = (None, FASTV, PYRAMID)
    # All together, and then some on their own: only then do all rows of a step do the same.
    for mix in (plans, *([plan] * 3 for plan in [*_uniform_plans(), *plans[:30:3]])):
        for number, plan in enumerate(mix):
            num_text = drawn.randint(1, 20)
            request = make_request(
                str(number),
                num_text=num_text,
                num_images=number % 2,
                plan=trim(plan),
                narrowing=narrowings[number // 2 % 3] if plan == FULL else None,
            )
            parts.add(request)
        while parts.scheduler.num_running or parts.scheduler.num_waiting:
            step = parts.scheduler.schedule()
            yield f"{step.num_rows} rows of {len(step.chunks)} sequences of {len(mix)}"
            runner.launch(step)
            parts.finish(step, UNREAD)


def _uniform_plans() -> Iterator[Plan]:
    """Yield plans in which all classes and layers do the same."""
    for does_attention, ffn in product((True, False), Ffn):
        column = (Cell(does_attention, ffn),) * NUM_LAYERS
        yield Plan((column,) * NUM_CLASSES)


def _draw_plan(drawn: Random) -> Plan:
    """Return a plan whose classes do different things."""
    cells = [
        Cell(drawn.random() < 0.7, drawn.choice(list(Ffn))) for _ in range(NUM_LAYERS * NUM_CLASSES)
    ]
    return Plan(tuple(zip(*[iter(cells)] * NUM_LAYERS, strict=True)))


def _differences(warm: list[Launch], new: Launch) -> dict[str, tuple[str, str]]:
    """Tell in what a launch differs from the one of a list that is most like it."""
    alike = (
        {
            name: (old.arguments[name], value)
            for name, value in new.arguments.items()
            if old.arguments[name] != value
        }
        for old in warm
        if old.arguments.keys() == new.arguments.keys()
    )
    return min(alike, key=len)


if __name__ == "__main__":
    sys.stdout.buffer.write(_NEW.dump_json(_find(sys.argv[1])))
