"""Measured quality of policies on one model: reads what evaluations left beside the weights.

The file holds one evaluation, or several of different data sets: `{"evaluations": [...]}`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from skipserve_policies.resolve import PolicyError
from skipserve_policies.schema import Quality

# `skipserve evaluate --summary MODEL/skip-quality.json` writes it.
QUALITY_FILE = "skip-quality.json"
IN_PERCENT = "in %"
_SEVERAL = "evaluations"
_SOURCE = "skipserve evaluate"

Summary = Mapping[str, Any]


class _Measure(BaseModel):
    """One figure of a metric; a share is from 0 to 1."""

    metric: str
    unit: Literal["share", "points"]
    value: float = Field(allow_inf_nan=False)
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)


class _Reached(BaseModel):
    """What was reached; files from before other metrics hold an accuracy alone."""

    accuracy: float = Field(ge=0, le=1, allow_inf_nan=False)
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)
    measures: tuple[_Measure, ...] = ()

    @property
    def first(self) -> _Measure:
        """What the metric is known for."""
        return self.figures[0]

    @property
    def figures(self) -> tuple[_Measure, ...]:
        return self.measures or (
            _Measure(
                metric="exact match",
                unit="share",
                value=self.accuracy,
                low=self.low,
                high=self.high,
            ),
        )


class _Retention(BaseModel):
    """The share of what `full` reached, with the interval of pairs of answers."""

    low: float = Field(allow_inf_nan=False)


class _BesideFull(BaseModel):
    retention: _Retention | None = None


class _Measured(_Reached):
    digest: str | None
    n: int = Field(ge=1)
    beside_full: _BesideFull | None = None


class _Baseline(_Reached):
    model: str


class _Evaluation(BaseModel):
    data: str
    dtype: str | None = None
    model_digest: str | None = None
    policies: dict[str, _Measured]
    baseline: _Baseline | None = None

    @property
    def quantization(self) -> str:
        """What the number type says behind a plus sign, as servers tell it."""
        return (self.dtype or "").partition("+")[2]


class _Evaluations(BaseModel):
    evaluations: tuple[_Evaluation, ...]


def load_measured(
    folder: Path, model: str, quantization: str = ""
) -> dict[str, tuple[Quality, ...]]:
    """Return the quality that was measured on a model, by the digest of what ran.

    A digest and not a name: a figure holds for every policy that computes the same, and for none
    whose name was given to something else since. Beside it stands what `full` reached: on this
    model or, where the evaluation was held against another one's answers, on that. Of each data set
    the metric's first figure comes first.

    Args:
        folder: the checkpoint's; without an evaluation in it, nothing was measured.
        model: what to call the model.
        quantization: in what its products are made, where it is not the number type: answers
            that were given in another are another model's.

    Raises:
        PolicyError: the file is not what an evaluation writes.
    """
    file = folder / QUALITY_FILE
    if not file.is_file():
        return {}
    try:
        evaluations = _evaluations(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise PolicyError(
            f"{file.name}: is not what `skipserve evaluate --summary` writes; run that again"
        ) from error
    found: dict[str, tuple[Quality, ...]] = {}
    for evaluation in evaluations:
        if evaluation.quantization != quantization:
            continue
        full: _Reached | None = evaluation.policies.get("full")
        source = _SOURCE
        if evaluation.baseline is not None:
            full = evaluation.baseline
            source += f"; full is {full.model}'s"
        by_digest = {it.digest: it for it in evaluation.policies.values() if it.digest}
        for digest, measured in by_digest.items():
            first, *others = _qualities(measured, full, model, evaluation.data, source)
            kept = {
                "retention_low": _retention_low(measured, full),
                "model_digest": evaluation.model_digest,
            }
            found[digest] = (*found.get(digest, ()), first.model_copy(update=kept), *others)
    return found


def _retention_low(measured: _Measured, full: _Reached | None) -> float | None:
    """Return the share of what `full` reached that is kept at least; None where nobody knows.

    Without the interval of pairs it is the lower end of the one by the upper end of the other: both
    hold at once at least as often as an interval of 95 % does at its lower end.
    """
    if full is None:
        return None
    if isinstance(full, _Measured) and full.digest == measured.digest:
        return 1.0
    if measured.beside_full is not None and measured.beside_full.retention is not None:
        return max(0.0, round(measured.beside_full.retention.low, 4))
    low, high = measured.first.low, full.first.high
    if low is None or not high or low < 0:
        return None
    return int(10_000 * low / high) / 10_000


def _evaluations(value: object) -> Sequence[_Evaluation]:
    if isinstance(value, dict) and _SEVERAL in value:
        return _Evaluations.model_validate(value).evaluations
    return (_Evaluation.model_validate(value),)


def _qualities(
    measured: _Measured, full: _Reached | None, model: str, data: str, source: str
) -> tuple[Quality, ...]:
    wholes = {} if full is None else {it.metric: it for it in full.figures}
    return tuple(
        Quality(
            model=model,
            dataset=data,
            metric=f"{it.metric}, {IN_PERCENT if it.unit == 'share' else 'in points'}",
            value=_shown(it, it.value),
            full=_shown(it, wholes[it.metric].value) if it.metric in wholes else None,
            n=measured.n,
            low=None if it.low is None else _shown(it, it.low),
            high=None if it.high is None else _shown(it, it.high),
            source=source,
        )
        for it in measured.figures
    )


def _shown(measure: _Measure, value: float) -> float:
    return round(100 * value if measure.unit == "share" else value, 2)


def read_summaries(file: Path) -> tuple[Summary, ...]:
    """Return the evaluations that a file holds; none where there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    if not file.is_file():
        return ()
    try:
        value = json.loads(file.read_text("utf-8"))
        _evaluations(value)
    except (ValueError, RecursionError):
        return ()
    return tuple(value[_SEVERAL]) if _SEVERAL in value else (value,)


def with_summary(others: Sequence[Summary], new: Summary) -> Summary:
    """Return what a file is to hold once another evaluation is added.

    It takes the place of an earlier one on the same data set. Those of other weights are dropped:
    the file stands beside one model's.
    """
    kept = [
        it
        for it in others
        if it["data"] != new["data"] and it.get("model_digest") == new.get("model_digest")
    ]
    return {_SEVERAL: [*kept, new]} if kept else new
