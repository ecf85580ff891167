"""What was found as a file of policies, as `skipserve serve --policies` takes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

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
    stanzas = {name: _stanza(found, full, model, data) for name, found in policies.items()}
    head = f"# {_SOURCE}: measured on {model} with {data}; serve --policies takes it.\n"
    path.write_text(head + yaml.safe_dump(stanzas, sort_keys=False, width=100), "utf-8")


def _stanza(found: Confirmed, full: Confirmed, model: str, data: str) -> dict[str, Any]:
    policy = found.policy.policy.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {
        "description": (
            f"Found for {model}: {found.cost:.0%} of the FLOPs. {found.accuracy} of the answers to "
            f"{data} are right, {full.accuracy} under full."
        ),
        "source": _SOURCE,
        "quality": [
            {
                "model": model,
                "dataset": data,
                "metric": "exact match, in %",
                "value": round(100 * found.accuracy.value, 2),
                "full": round(100 * full.accuracy.value, 2),
                "n": len(found.right),
                "low": round(100 * found.accuracy.low, 2),
                "high": round(100 * found.accuracy.high, 2),
                "source": _SOURCE,
            }
        ],
        **policy,
    }
