"""Draws a calibration: cost against what is kept, and what each layer is needed for."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skipserve_training.calibration.anatomy import Anatomy
from skipserve_training.calibration.calibrating import Calibration
from skipserve_training.calibration.confirming import Confirmed
from skipserve_training.calibration.measuring import LayerDamage
from skipserve_training.calibration.tables import ACTIONS

FRONTIER, LAYERS = "frontier.png", "layers.png"
_BLUE, _ORANGE, _GREY = "#2563eb", "#d97706", "#64748b"
_COLOURS = ("#2563eb", "#d97706", "#059669")
_DPI = 150


def draw_all(calibration: Calibration, folder: Path) -> None:
    """Write both pictures into a folder."""
    with mpl.rc_context({"font.size": 9}):
        for name, figure in (
            (FRONTIER, _frontier(calibration)),
            (LAYERS, _layers(calibration)),
        ):
            figure.savefig(folder / name, dpi=_DPI)


def _frontier(calibration: Calibration) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    ranked, confirmed = figure.subplots(1, 2)
    cost = calibration.conditions["cost"]
    _prepare(ranked, f"the search, {calibration.conditions['num_ranking']} questions", cost)
    ranked.set_ylabel("damage, log(1 + nats)")
    rivals = calibration.rivals
    ranked.plot(
        [it.cost for it in rivals], [it.damage for it in rivals], "x", color=_ORANGE, ms=5,
        label="catalog",
    )  # fmt: skip
    points = calibration.frontier
    ranked.plot(
        [it.cost for it in points], [it.damage for it in points], ".-", color=_BLUE, ms=4,
        label="found",
    )  # fmt: skip
    ranked.legend()
    _prepare(confirmed, f"unseen, {calibration.conditions['num_confirming']} questions", "flops")
    confirmed.set_ylabel("right answers, % (95 % interval)")
    found = [calibration.full, *(it.confirmed for it in calibration.found.values())]
    _bars(confirmed, [duel.theirs for duel in calibration.duels], "x", _ORANGE, "catalog")
    _bars(confirmed, found, "o", _BLUE, "found")
    confirmed.axhline(100 * calibration.full.accuracy.value, color=_GREY, ls="--", lw=1)
    confirmed.legend(loc="lower right")
    return figure


def _bars(axes: Axes, found: Sequence[Confirmed], marker: str, colour: str, label: str) -> None:
    if not found:
        return
    values = np.array([100 * it.accuracy.value for it in found])
    below = values - [100 * it.accuracy.low for it in found]
    above = [100 * it.accuracy.high for it in found] - values
    axes.errorbar(
        [it.cost for it in found], values, yerr=np.stack([below, above]).clip(min=0),
        fmt=marker, color=colour, label=label, ms=5, lw=1, capsize=2,
    )  # fmt: skip


def _layers(calibration: Calibration) -> Figure:
    classes = [*dict.fromkeys(it.token_class for it in calibration.layers)]
    num_layers = 1 + max(it.layer for it in calibration.layers)
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    heat, lines = figure.subplots(2, 1, height_ratios=(3, 2))
    _heat(heat, calibration.layers, classes, num_layers, figure)
    if calibration.anatomy is None:
        lines.set_axis_off()
    else:
        _lines(lines, calibration.anatomy)
        lines.set_xlim(-0.5, num_layers - 0.5)
    return figure


def _heat(
    axes: Axes,
    layers: Sequence[LayerDamage],
    classes: Sequence[str],
    num_layers: int,
    figure: Figure,
) -> None:
    rows = [(action, token_class) for action in ACTIONS for token_class in classes]
    table = np.full((len(rows), num_layers), np.nan)
    for it in layers:
        table[rows.index((it.action, it.token_class)), it.layer] = it.divergence
    shown = axes.imshow(
        np.log10(np.maximum(table, 1e-4)), aspect="auto", cmap="magma_r", vmin=-4, vmax=1
    )
    labels = [f"{action.value.removeprefix('skip_')}, {rows_of}" for action, rows_of in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.set_title("skipped in one layer: KL divergence of the answer's distributions", fontsize=9)
    figure.colorbar(shown, ax=axes, label="log10 of nats", pad=0.01)


def _lines(axes: Axes, anatomy: Anatomy) -> None:
    layers = range(len(anatomy.influence))
    axes.plot(layers, anatomy.influence, "-", color=_GREY, label="block influence")
    for colour, (name, values) in zip(_COLOURS, anatomy.cosine.items(), strict=False):
        axes.plot(layers, values, "-", color=colour, label=f"cosine in to out, {name} rows")
    axes.plot(
        layers, anatomy.visual_mass, "-", color=_COLOURS[2],
        label="the last row's attention to visual rows",
    )  # fmt: skip
    axes.axhline(
        anatomy.visual_share, color=_COLOURS[2], ls=":", lw=1, label="the share of visual rows"
    )
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("layer")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.25))


def _prepare(axes: Axes, title: str, cost: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(f"{'FLOPs' if cost == 'flops' else 'seconds'}, of the full model's")
    axes.grid(alpha=0.3)
