"""What was found as a file of policies, as `skipserve serve --policies` takes it."""

from collections.abc import Mapping
from pathlib import Path

from skipserve_policies.catalog import policies_text
from skipserve_policies.schema import Quality, SkipPolicy
from skipserve_training.calibration.confirming import Confirmed

_SOURCE = "skipserve calibrate"


def write_policies(
    path: Path, policies: Mapping[str, Confirmed], full: Confirmed, model: str, data: str
) -> None:
    """Write policies with what was measured of them.

    Args:
        path: the file.
        policies: what to write, by name.
        full: the full model on the same questions.
        model: what results call the model.
        data: what they call the questions.
    """
    measured = {name: _measured(found, full, model, data) for name, found in policies.items()}
    head = f"# {_SOURCE}: measured on {model} with {data}; serve --policies takes it.\n"
    path.write_text(head + policies_text(measured), "utf-8")


def _measured(found: Confirmed, full: Confirmed, model: str, data: str) -> SkipPolicy:
    quality = Quality(
        model=model,
        dataset=data,
        metric="exact match, in %",
        value=_percent(found.accuracy.value),
        full=_percent(full.accuracy.value),
        n=len(found.right),
        low=_percent(found.accuracy.low),
        high=_percent(found.accuracy.high),
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
