"""Draws what skip policies gain beside what their FLOPs promise."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

# How many times as fast as the full model, by concurrency and policy.
Speedups = Mapping[int, Mapping[str, float]]

_BAR = "#d1d5db"
_COLOURS = ("#93c5fd", "#3b82f6", "#1d4ed8", "#172554")


def draw(flops_ratios: Mapping[str, float], speedups: Speedups, file: Path) -> None:
    """Write a picture with a line a policy; its kind follows the file's ending (svg, png, pdf).

    Args:
        flops_ratios: FLOPs of the full model over those of each policy.
        speedups: measured, of the same policies.
        file: where to.
    """
    policies = list(flops_ratios)
    figure = Figure(figsize=(9, 1.4 + 0.26 * len(policies)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        policies, list(flops_ratios.values()), color=_BAR, label="planned FLOPs, full / policy"
    )
    for number, (concurrency, found) in enumerate(speedups.items()):
        axes.plot(
            [found[policy] for policy in policies],
            policies,
            linestyle="none",
            marker="o",
            markersize=4,
            color=_COLOURS[number % len(_COLOURS)],
            label=f"measured, {concurrency} at a time",
        )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.set_title("times as many requests per second as the full model", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(file)
