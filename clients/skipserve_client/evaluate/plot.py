"""Draws what an evaluation found: accuracy against the FLOPs that each policy saves."""

from pathlib import Path

from matplotlib.figure import Figure

from skipserve_client.evaluate.results import Evaluation, PolicyResult


def draw(evaluation: Evaluation, file: Path) -> None:
    """Write a picture with a point a policy; its kind follows the file's ending (svg, png, pdf).

    Policies that share a place share a label.

    Raises:
        ValueError: the ending is not one of a picture.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("FLOPs saved, %")
    axes.set_ylabel("accuracy, % (bars: 95 % interval)")
    axes.grid(alpha=0.3)
    for result in evaluation.policies.values():
        x, y = _place(result)
        low, high = 100 * result.score.low, 100 * result.score.high
        axes.errorbar(x, y, yerr=[[y - low], [high - y]], fmt="o", color="#2563eb", capsize=2)
    for (x, y), names in _names_by_place(evaluation).items():
        axes.annotate("\n".join(names), (x, y), (6, -4), textcoords="offset points", fontsize=6)
    figure.savefig(file)


def _place(result: PolicyResult) -> tuple[float, float]:
    return 100 * result.flops_saved, 100 * result.score.accuracy


def _names_by_place(evaluation: Evaluation) -> dict[tuple[float, float], list[str]]:
    """Return the names at each place, for which half a percent makes no difference."""
    found: dict[tuple[float, float], list[str]] = {}
    for name, result in evaluation.policies.items():
        x, y = _place(result)
        found.setdefault((round(2 * x) / 2, round(2 * y) / 2), []).append(name)
    return found
