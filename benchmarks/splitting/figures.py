"""What is kept of a policy's steps, as rows of the record and back; and what follows from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from report import Row
from splitting.parts import Part, Stage


@dataclass(frozen=True)
class Figures:
    """The steps of one policy.

    Attributes:
        gflops: planned for a request in such steps.
        picture_gflops: of these, before the language model.
        milliseconds: of a step, without the profiler.
        noise: how far its share of the full model's time may be off, in percent of that.
        profile: what the profile's forward takes, less the profiler's own cost, in percent of the
            forward without it.
        parts: milliseconds of the parts, which sum to the whole.
    """

    gflops: float
    picture_gflops: float
    milliseconds: float
    noise: float
    profile: float
    parts: Mapping[Part, float]


# Figures by policy, "full" first; and by model and stage.
Policies = Mapping[str, Figures]
Found = Mapping[tuple[str, Stage], Policies]


def as_rows(found: Found) -> Iterator[Row]:
    """Yield all figures; those in percent are shares of the full model's."""
    for (model, stage), policies in found.items():
        full = policies["full"]
        for policy, figures in policies.items():
            name = f"{model}/{stage}/{policy}"
            yield Row(f"{name}/FLOPs of full", 100 * figures.gflops / full.gflops, "%")
            yield Row(f"{name}/time of full", 100 * figures.milliseconds / full.milliseconds, "%")
            yield Row(f"{name}/give or take", figures.noise, "%")
            yield Row(f"{name}/planned", figures.gflops, "GFLOP")
            yield Row(f"{name}/planned for the picture", figures.picture_gflops, "GFLOP")
            yield Row(f"{name}/time", figures.milliseconds, "ms")
            yield Row(f"{name}/profile", figures.profile, "% of the forward")
            for part in Part:
                yield Row(f"{name}/{part}", figures.parts[part], "ms")


def from_record(record: Mapping[str, Any]) -> Found:
    """Return the figures that a record holds."""
    values: dict[tuple[str, Stage], dict[str, dict[str, float]]] = {}
    for row in record["rows"]:
        *model, stage, policy, figure = row["name"].split("/")
        place = values.setdefault(("/".join(model), Stage(stage)), {})
        place.setdefault(policy, {})[figure] = row["value"]
    return {
        place: {policy: _figures(kept) for policy, kept in policies.items()}
        for place, policies in values.items()
    }


def _figures(kept: Mapping[str, float]) -> Figures:
    return Figures(
        gflops=kept["planned"],
        picture_gflops=kept["planned for the picture"],
        milliseconds=kept["time"],
        noise=kept["give or take"],
        profile=kept["profile"],
        parts={part: kept[part] for part in Part},
    )


@dataclass(frozen=True)
class Comparison:
    """A policy beside the full model.

    Attributes:
        flops: its share of the full model's FLOPs.
        time: its share of the full model's time.
        noise: how far `time` may be off.
        beyond: what each part takes beyond the share that the FLOPs promise, as a share of the full
            model's time; their sum is `time - flops`.
    """

    flops: float
    time: float
    noise: float
    beyond: Mapping[Part, float]


def compare(policy: Figures, full: Figures) -> Comparison:
    """Compare a policy with the full model, part by part.

    A part of the language model is to take the share that the model's FLOPs promise. The picture is
    to take what it takes under `full`; but where it takes more time a FLOP than the whole does,
    what is saved elsewhere shows less, and that is put down to it.
    """
    flops = policy.gflops / full.gflops
    whole = full.milliseconds
    in_model = (policy.gflops - policy.picture_gflops) / (full.gflops - full.picture_gflops)
    beyond = {part: policy.parts[part] - in_model * full.parts[part] for part in Part}
    of_picture = in_model * full.milliseconds - flops * full.milliseconds
    beyond[Part.PICTURE] += of_picture
    return Comparison(
        flops=flops,
        time=policy.milliseconds / whole,
        noise=policy.noise / 100,
        beyond={part: milliseconds / whole for part, milliseconds in beyond.items()},
    )


# What is less is not told.
_LEAST = 0.02
_LEAST_OF_PART = 0.005
_MOST_PARTS = 3


def error_of_controls(policies: Policies) -> float:
    """Return how far policies are off that compute just what `full` does, as a share of its time.

    In a step in which all decode, these are the policies that leave out work of prompts alone.
    """
    full = policies["full"]
    found = [compare(figures, full) for figures in policies.values()]
    return max(abs(it.time - 1) for it in found if it.flops == 1)


def sentence(found: Comparison, error: float = 0.0) -> str:
    """Say in one plain sentence what a policy takes, and which parts take the difference.

    Args:
        found: the policy beside the full model.
        error: that was seen where there is no difference; its own noise may be more.
    """
    taken = f"{_percent(found.flops)} of the FLOPs take {_percent(found.time)} of the time"
    missing = found.time - found.flops
    doubt = max(_LEAST, found.noise, error)
    if abs(missing) <= doubt:
        return (
            f"{taken}: no difference that this run can tell, give or take {_points(doubt)} points."
        )
    direction = 1 if missing > 0 else -1
    ranked = sorted(found.beyond, key=lambda part: -direction * found.beyond[part])
    named = [part for part in ranked if direction * found.beyond[part] >= _LEAST_OF_PART]
    told = _list([f"{_points(found.beyond[part])} {_IN[part]}" for part in named[:_MOST_PARTS]])
    against = -sum(min(direction * it, 0) for it in found.beyond.values())
    given = f", and {_points(against)} the other way elsewhere" if against >= _LEAST_OF_PART else ""
    how = "more" if missing > 0 else "fewer"
    return f"{taken}, {_points(missing)} points {how} than they promise: {told}{given}."


# As they stand behind a number of points.
_IN: Mapping[Part, str] = {
    Part.WEIGHTS: "in reading weights",
    Part.ARITHMETIC: "in arithmetic",
    Part.ATTENTION: "in attention",
    Part.ELEMENTWISE: "in elementwise work",
    Part.ROWS: "in gathers and puts",
    Part.CALLS: "in calls",
    Part.PICTURE: "in the picture",
    Part.HOST: "on the host",
    Part.OTHER: "in unknown operators",
}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(share: float) -> str:
    return f"{abs(100 * share):.1f}"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
