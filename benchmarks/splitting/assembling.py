"""Turns what runs took and what their profiles show into figures of policies."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from splitting.figures import Figures, Policies
from splitting.parts import Part, Stage
from splitting.subject import Subject
from splitting.trace import Profiled, typical_seconds
from splitting.watched import StepTime


@dataclass(frozen=True)
class Run:
    """One turn of a policy.

    Attributes:
        plain: its steps without the profiler.
        watched: its steps under the profiler.
        pieces: of the latter.
    """

    plain: list[StepTime]
    watched: list[StepTime]
    pieces: Profiled


def all_figures(subject: Subject, runs: Mapping[str, list[Run]], stage: Stage) -> Policies:
    """Return the figures of all policies in a stage."""
    full = [_typical(run.plain, stage, _whole) for run in runs["full"]]
    found = {}
    for policy, own in runs.items():
        totals = [_typical(run.plain, stage, _whole) for run in own]
        shares = [taken / of_full for taken, of_full in zip(totals, full, strict=True)]
        whole, parts, profiled = _in_parts(subject, policy, own, stage)
        flops, of_picture = subject.planned_flops(policy, stage)
        found[policy] = Figures(
            gflops=flops / 1e9,
            picture_gflops=of_picture / 1e9,
            milliseconds=1000 * whole,
            noise=100 * uncertainty(shares),
            profile=100 * profiled,
            parts={part: 1000 * seconds for part, seconds in parts.items()},
        )
    return found


def uncertainty(values: Sequence[float]) -> float:
    """Return how far the median of values may be off: the notch of a box plot, about 95 %."""
    low, high = np.percentile(values, [25, 75])
    return float(1.57 * (high - low) / math.sqrt(len(values)))


def _in_parts(
    subject: Subject, policy: str, runs: Sequence[Run], stage: Stage
) -> tuple[float, dict[Part, float], float]:
    """Return the seconds of a step, of its parts, and the profile's forward over the plain one."""
    whole, picture, host = (
        median(_typical(run.plain, stage, taken) for run in runs)
        for taken in (_whole, _of_picture, _of_host)
    )
    profiled = _profiled(subject, runs, stage)
    if subject.model.device.type == "cpu":
        parts, ratio = fit(profiled, whole - picture - host)
        parts |= {Part.PICTURE: picture, Part.HOST: host}
    else:
        parts, ratio = fit_device(profiled, whole), 1.0
    return whole, take_reading(parts, subject.reading_seconds(policy, stage)), ratio


def _typical(steps: Sequence[StepTime], stage: Stage, taken: Callable[[StepTime], float]) -> float:
    """Return what a step in a stage takes, the median."""
    return median(taken(step) for step in steps if step.stage is stage)


def _whole(step: StepTime) -> float:
    return step.seconds


def _of_picture(step: StepTime) -> float:
    return step.picture_seconds


def _of_host(step: StepTime) -> float:
    return step.seconds - step.forward_seconds - step.picture_seconds


def _profiled(subject: Subject, runs: Sequence[Run], stage: Stage) -> dict[Part, float]:
    """Return the seconds of each part of a step by the profile, less the profiler's own."""
    watched = [step for run in runs for step in run.watched]
    share = sum(it.seconds for it in watched) / sum(it.clock_seconds for it in watched)
    pieces = typical_seconds([run.pieces for run in runs], min(share, 1.0))
    steps = {number for number, step in enumerate(runs[0].watched) if step.stage is stage}
    parts = pieces.in_parts(steps)
    # An operation brings two pieces: its own, and one of what goes on behind it.
    count = pieces.num_in_forward(steps) / 2
    parts[Part.CALLS] = max(parts[Part.CALLS] - count * subject.costs.profiler_seconds, 0.0)
    return {part: seconds / len(steps) for part, seconds in parts.items()}


def fit(profiled: Mapping[Part, float], forward: float) -> tuple[dict[Part, float], float]:
    """Return the parts of a forward in the proportions of a profile, and how much longer that was.

    Args:
        profiled: seconds of each part.
        forward: what the forward takes without the profiler.
    """
    inside = {part: it for part, it in profiled.items() if part not in (Part.PICTURE, Part.HOST)}
    ratio = sum(inside.values()) / forward
    return {part: seconds / ratio for part, seconds in inside.items()}, ratio


def fit_device(profiled: Mapping[Part, float], whole: float) -> dict[Part, float]:
    """Return the parts of a step on a GPU: its kernels as they are, and the rest is the host's.

    Args:
        profiled: seconds of each part; the host's are those between the device's ranges alone.
        whole: what a step takes without the profiler.
    """
    busy = sum(profiled.values()) - profiled[Part.HOST]
    return {**profiled, Part.HOST: max(whole - busy, 0.0)}


def take_reading(parts: Mapping[Part, float], seconds: float) -> dict[Part, float]:
    """Take the reading of weights out of the products; it cannot be more than all of them."""
    products = parts[Part.ARITHMETIC]
    reading = min(seconds, products)
    return {**parts, Part.WEIGHTS: reading, Part.ARITHMETIC: products - reading}
