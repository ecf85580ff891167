"""Measured quality of policies on one model: reads what an evaluation left beside the weights."""

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from skipserve_policies.resolve import PolicyError
from skipserve_policies.schema import Quality

# `skipserve evaluate --summary MODEL/skip-quality.json` writes it.
QUALITY_FILE = "skip-quality.json"


class _Measured(BaseModel):
    digest: str
    accuracy: float = Field(ge=0, le=1, allow_inf_nan=False)
    n: int = Field(ge=1)


class _Evaluation(BaseModel):
    data: str
    policies: dict[str, _Measured]


def load_measured(folder: Path, model: str) -> dict[str, tuple[Quality, ...]]:
    """Return the quality that was measured on a model, by the digest of what ran.

    A digest and not a name: a figure holds for every policy that computes the same, and for none
    whose name was given to something else since.

    Args:
        folder: the checkpoint's; without an evaluation in it, nothing was measured.
        model: what to call the model.

    Raises:
        PolicyError: the file is not what an evaluation writes.
    """
    file = folder / QUALITY_FILE
    if not file.is_file():
        return {}
    try:
        evaluation = _Evaluation.model_validate_json(file.read_text("utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        raise PolicyError(
            f"{file.name}: is not what `skipserve evaluate --summary` writes; run that again"
        ) from error
    full = evaluation.policies.get("full")
    return {
        measured.digest: (
            Quality(
                model=model,
                dataset=evaluation.data,
                metric="exact match, in %",
                value=_percent(measured.accuracy),
                full=None if full is None else _percent(full.accuracy),
                n=measured.n,
                source="skipserve evaluate",
            ),
        )
        for measured in evaluation.policies.values()
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)
