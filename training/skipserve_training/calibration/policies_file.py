"""What was found as a file of policies, as `skipserve serve --policies` takes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skipserve_policies.catalog import policies_text
from skipserve_policies.schema import Quality, SkipPolicy
from skipserve_training.calibration.confirming import Confirmed

_SOURCE = "skipserve calibrate"


@dataclass(frozen=True)
class MeasuredOn:
    """What policies were measured on.

    Attributes:
        model: what results call the model.
        model_digest: sha256 of its weights.
        data: what results call the questions.
    """

    model: str
    model_digest: str
    data: str


def write_policies(
    path: Path,
    policies: Mapping[str, Confirmed],
    full: Confirmed,
    measured_on: MeasuredOn,
) -> None:
    """Write policies with what was measured of them.

    Args:
        path: the file.
        policies: what to write, by name.
        full: the full model on the same questions.
        measured_on: what they were measured on.
    """
    measured = {name: _measured(found, full, measured_on) for name, found in policies.items()}
    model, data = measured_on.model, measured_on.data
    head = f"# {_SOURCE}: measured on {model} with {data}; serve --policies takes it.\n"
    path.write_text(head + policies_text(measured), "utf-8")


def _measured(found: Confirmed, full: Confirmed, measured_on: MeasuredOn) -> SkipPolicy:
    model, data = measured_on.model, measured_on.data
    quality = Quality(
        model=model,
        model_digest=measured_on.model_digest,
        dataset=data,
        metric="exact match, in %",
        value=_percent(found.accuracy.value),
        full=_percent(full.accuracy.value),
        n=len(found.right),
        low=_percent(found.accuracy.low),
        high=_percent(found.accuracy.high),
        retention_low=None if found.retention is None else _share(found.retention.low),
        source=_SOURCE,
    )
    description = (
        f"Found for {model}: {found.cost:.0%} of the FLOPs. {found.accuracy} of the answers to "
        f"{data} are right, {full.accuracy} under full."
    )
    told = {"description": description, "source": _SOURCE, "quality": (quality,)}
    return found.policy.policy.model_copy(update=told)


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _share(share: float) -> float:
    return max(0.0, round(share, 4))
