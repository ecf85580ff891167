"""Draws what an evaluation found: for each policy its score, the FLOPs saved and the latency."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from skipserve_client.evaluate.metrics.metric import SHARE
from skipserve_client.evaluate.results import Evaluation

_COLOUR = "#2563eb"


def draw(evaluation: Evaluation, file: Path) -> None:
    """Write a picture with a line a policy; its kind follows the file's ending (svg, png, pdf).

    Raises:
        ValueError: the ending is not one of a picture.
    """
    _figure(evaluation).savefig(file)


def svg(evaluation: Evaluation) -> bytes:
    """Return that picture as SVG."""
    buffer = io.BytesIO()
    _figure(evaluation).savefig(buffer, format="svg")
    return buffer.getvalue()


def _figure(evaluation: Evaluation) -> Figure:
    names, results = list(evaluation.policies), list(evaluation.policies.values())
    figure = Figure(figsize=(10, 1.2 + 0.26 * len(names)), layout="constrained")
    accuracy, saved, latency = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    accuracy.set_yticks(range(len(names)), names, fontsize=8)
    accuracy.invert_yaxis()
    measure = evaluation.metric.measures[0]
    scale = 100 if measure.unit == SHARE else 1
    found = [result.headline for result in results]
    values = [scale * it.value for it in found]
    bars = (
        [max(0.0, scale * (it.value - it.low)) for it in found],
        [max(0.0, scale * (it.high - it.value)) for it in found],
    )
    accuracy.errorbar(values, range(len(names)), xerr=bars, fmt="o", color=_COLOUR, capsize=2)
    saved.barh(names, [100 * (result.flops_saved or 0.0) for result in results], color=_COLOUR)
    latency.barh(names, [1000 * result.latency_seconds for result in results], color=_COLOUR)
    unit = "%" if measure.unit == SHARE else measure.unit
    titles = (f"{measure.name}, {unit} (95 % interval)", "FLOPs saved, %", "median latency, ms")
    for axes, title in zip((accuracy, saved, latency), titles, strict=True):
        axes.set_title(title, fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="x", labelsize=8)
    return figure
