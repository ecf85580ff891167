"""Draws what an evaluation found: for each policy its accuracy, the FLOPs saved and the latency."""

from pathlib import Path

from matplotlib.figure import Figure

from skipserve_client.evaluate.results import Evaluation

_COLOUR = "#2563eb"


def draw(evaluation: Evaluation, file: Path) -> None:
    """Write a picture with a line a policy; its kind follows the file's ending (svg, png, pdf).

    Raises:
        ValueError: the ending is not one of a picture.
    """
    names, results = list(evaluation.policies), list(evaluation.policies.values())
    figure = Figure(figsize=(10, 1.2 + 0.26 * len(names)), layout="constrained")
    accuracy, saved, latency = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    accuracy.set_yticks(range(len(names)), names, fontsize=8)
    accuracy.invert_yaxis()
    shares = [100 * result.score.accuracy for result in results]
    bars = (
        [share - 100 * result.score.low for share, result in zip(shares, results, strict=True)],
        [100 * result.score.high - share for share, result in zip(shares, results, strict=True)],
    )
    accuracy.errorbar(shares, range(len(names)), xerr=bars, fmt="o", color=_COLOUR, capsize=2)
    saved.barh(names, [100 * result.flops_saved for result in results], color=_COLOUR)
    latency.barh(names, [1000 * result.latency_seconds for result in results], color=_COLOUR)
    titles = ("accuracy, % (95 % interval)", "FLOPs saved, %", "median latency, ms")
    for axes, title in zip((accuracy, saved, latency), titles, strict=True):
        axes.set_title(title, fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="x", labelsize=8)
    figure.savefig(file)
