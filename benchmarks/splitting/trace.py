"""What a profile says: for each moment the innermost operation, and so the part that it goes to."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
from numpy.typing import NDArray
from splitting.parts import Part, part_of_kernel, part_of_operator
from splitting.watched import FORWARD, PICTURE, STEP
from torch.profiler import profile

_ON_HOST = {"cpu_op", "user_annotation"}
_ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation"}

# What is longer is seldom free of interruptions where others use the machine too.
_SHORT_SECONDS = 1e-3


@dataclass(frozen=True)
class Event:
    """An operation, a kernel, or a range that was marked.

    Attributes:
        name: of the operator or kernel; STEP, FORWARD and PICTURE of a range.
        start: in seconds.
        stop: in seconds.
    """

    name: str
    start: float
    stop: float


@dataclass(frozen=True)
class Piece:
    """Time in which one operation was innermost.

    Attributes:
        step: the number of the step, from 0.
        part: where it goes.
        name: of the operation.
        seconds: how long.
    """

    step: int
    part: Part
    name: str
    seconds: float


@dataclass(frozen=True)
class Profiled:
    """One run under the profiler.

    Attributes:
        labels: step, part and operation of each piece, in the order of time.
        seconds: of each piece.
    """

    labels: tuple[tuple[int, Part, str], ...]
    seconds: NDArray[np.float64]

    @classmethod
    def of(cls, found: Iterable[Piece]) -> Self:
        """Gather pieces."""
        pieces = list(found)
        labels = tuple((piece.step, piece.part, piece.name) for piece in pieces)
        return cls(labels, np.array([piece.seconds for piece in pieces]))

    def in_parts(self, steps: Collection[int]) -> dict[Part, float]:
        """Return the seconds of each part in some steps."""
        taken = dict.fromkeys(Part, 0.0)
        for (step, part, _), seconds in zip(self.labels, self.seconds.tolist(), strict=True):
            if step in steps:
                taken[part] += seconds
        return taken

    def num_in_forward(self, steps: Collection[int]) -> int:
        """Return how many pieces the forwards of some steps have."""
        outside = (Part.PICTURE, Part.HOST)
        return sum(step in steps and part not in outside for step, part, _ in self.labels)


def read_events(found: profile) -> tuple[list[Event], bool]:
    """Return the events that count, and whether they are a device's, which come first."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        found.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    on_device = any(event.get("cat") == "kernel" for event in events)
    wanted = _ON_DEVICE if on_device else _ON_HOST
    return [
        Event(event["name"], event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)
        for event in events
        if event.get("cat") in wanted
    ], on_device


def split(events: Iterable[Event], *, on_device: bool) -> Iterator[Piece]:
    """Yield the pieces of the steps, in the order of time; what is outside of steps does not count.

    A piece goes to the innermost operation of the moment. In a forward, what is in no operation is
    calls: on a device, waiting for the host. Outside of it, all of a CPU's time is the picture's or
    the host's; on a device, that is what is in no kernel, for graphs run without a forward.
    """
    stack: list[Event] = []
    clock, step = 0.0, -1

    def until(moment: float) -> Iterator[Piece]:
        nonlocal clock
        # Pieces of no length too, so that runs of equal steps have the same ones.
        if stack and stack[0].name == STEP:
            names = [event.name for event in stack]
            seconds = max(moment - clock, 0.0)
            yield Piece(step, _part(names, on_device=on_device), names[-1], seconds)
        clock = max(clock, moment)

    for event in sorted(events, key=_order):
        while stack and stack[-1].stop <= event.start:
            yield from until(stack[-1].stop)
            stack.pop()
        yield from until(event.start)
        step += event.name == STEP and not stack
        stack.append(event)
    while stack:
        yield from until(stack[-1].stop)
        stack.pop()


def _order(event: Event) -> tuple[float, float, int]:
    """Return what sorts events by time, and of equal times ranges before what is in them."""
    return event.start, -event.stop, {STEP: 0, PICTURE: 1, FORWARD: 1}.get(event.name, 2)


def _part(names: Sequence[str], *, on_device: bool) -> Part:
    """Return where time goes, by the names of what it is in, the outermost first."""
    innermost = names[-1]
    if PICTURE in names:
        return Part.PICTURE
    if innermost == FORWARD:
        return Part.CALLS
    if innermost == STEP:
        return Part.HOST
    if on_device:
        return part_of_kernel(innermost)
    return part_of_operator(innermost) if FORWARD in names else Part.HOST


def typical_seconds(runs: Sequence[Profiled], running_share: float) -> Profiled:
    """Return what each piece takes by itself, over runs of the same steps.

    Others on the machine interrupt some pieces of each run. A short piece is mostly spared, so its
    median is free of that; a long one is interrupted as the whole is, so its mean takes as much of
    the processor as the whole does. Runs that called other operations than most did are left out.

    Args:
        runs: of equal questions.
        running_share: seconds of the processor over those of the clock, of the same steps.
    """
    orders = [run.labels for run in runs]
    labels = max(orders, key=orders.count)
    table = np.stack([run.seconds for run in runs if run.labels == labels])
    middle = np.median(table, axis=0)
    seconds = np.where(middle < _SHORT_SECONDS, middle, table.mean(axis=0) * running_share)
    return Profiled(labels, seconds)
