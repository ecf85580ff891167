"""Draws what was found: skipping by the number of blocks, each layer alone, and trainings."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skipserve_training.paper.cells import (
    FULL,
    INFERENCE,
    LADDER,
    LAYERS,
    SKIPS,
    TRAINING,
    VISUAL,
    Cell,
    Form,
)
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.records import ALL, Score, Way, as_fields
from skipserve_training.paper.setup import Scoring

_COLOURS = dict(
    zip(Form, ("#2563eb", "#d97706", "#059669", "#9333ea", "#db2777", "#64748b"), strict=True)
)
# What a score's better way is called.
_ACCEPTED = {
    Scoring.ANSWER: "accepted answers, %",
    Scoring.VOTES: "accuracy, %",
    Scoring.CAPTIONS: "captions as the full model's, %",
}
_GREY, _BLUE = "#94a3b8", "#2563eb"


def draw_all(findings: Findings, folder: Path) -> None:
    """Write all pictures into a folder."""
    for name, draw in PICTURES.items():
        # No date and no random names: the same records draw the same files.
        with mpl.rc_context({"svg.hashsalt": "skipserve", "svg.fonttype": "path"}):
            figure = draw(findings)
            notes = {"Date": None, "Description": digest(findings)}
            figure.savefig(folder / name, metadata=notes)


def digest(findings: Findings) -> str:
    """Name the records that pictures are drawn of."""
    groups = (INFERENCE, LAYERS, VISUAL, TRAINING, LADDER)
    records = [as_fields(record) for group in groups for _, record in findings.measured(group)]
    return "records " + hashlib.sha256(json.dumps(records).encode()).hexdigest()


def _draw_skipping(findings: Findings) -> Figure:
    groups: list[tuple[str, str, str]] = [
        ("all rows", INFERENCE, "all"),
        ("generated rows", INFERENCE, "generated"),
    ]
    if findings.setup.patches is not None:
        groups.append((f"rows of the picture, {findings.setup.patches}", VISUAL, "visual"))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True)
    for axes, (title, group, scope) in zip(panels, groups, strict=True):
        _prepare(findings, axes, title, f"blocks touched, of {findings.setup.depth}")
        for form, colour in _COLOURS.items():
            found = [
                (len(record.layers), record.untrained)
                for cell, record in findings.measured(group)
                if _is_of(cell, form, scope)
            ]
            shares = [_percent(score, Way.ACCEPTED) for _, score in found]
            axes.plot([x for x, _ in found], shares, "o", color=colour, label=form, ms=5)
    panels[0].set_ylabel(_ACCEPTED[findings.setup.scoring])
    panels[-1].legend(fontsize=8, loc="lower left")
    return figure


def _draw_layers(findings: Findings) -> Figure:
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots()
    _prepare(findings, axes, "one layer skipped, for all rows", "layer")
    for form in SKIPS:
        found = [
            (record.layers[0], _percent(record.untrained, Way.ACCEPTED))
            for cell, record in findings.measured(LAYERS)
            if _is_of(cell, form, "all")
        ]
        places, shares = [x for x, _ in found], [y for _, y in found]
        axes.plot(places, shares, "o-", color=_COLOURS[form], label=form, ms=4)
    axes.set_ylabel(_ACCEPTED[findings.setup.scoring])
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _draw_training(findings: Findings) -> Figure:
    found = [record for group in (TRAINING, LADDER) for _, record in findings.measured(group)]
    figure = Figure(figsize=(10, 1.2 + 0.28 * len(found)), layout="constrained")
    axes = figure.subplots()
    _prepare_shares(axes.set_xlim, axes, "untrained (grey) and trained (blue)")
    way = Way.EXACT if findings.setup.scoring is Scoring.ANSWER else Way.ACCEPTED
    told = "exact answers, %" if way is Way.EXACT else _ACCEPTED[findings.setup.scoring]
    axes.set_xlabel(told, fontsize=8)
    axes.set_yticks(range(len(found)), [record.name for record in found], fontsize=8)
    axes.invert_yaxis()
    for blind in _blind(findings):
        axes.axvline(blind, color=_GREY, ls="--", lw=1)
    for place, record in enumerate(found):
        ends = [_percent(record.untrained, way), _percent(record.last, way)]
        axes.plot(ends, [place, place], "-", color=_GREY, lw=1)
        axes.plot(ends[0], place, "o", color=_GREY)
        axes.plot(ends[1], place, "o", color=_BLUE)
    return figure


def _is_of(cell: Cell, form: Form, scope: str) -> bool:
    if cell.policy is None:
        return False
    rule = cell.policy["rules"][0]
    fields = {name: rule[name] for name in rule if name not in {"layers", "scope"}}
    return fields == form.fields and rule["scope"] == scope


def _percent(score: Score, way: Way) -> float:
    count = score.types[ALL]
    return 100 * (count.exact if way is Way.EXACT else count.accepted) / count.n


def _blind(findings: Findings) -> list[int]:
    """Return the percentage that is reached without looking at the picture, if it was measured."""
    full = findings.record(FULL)
    count = None if full is None else full.untrained.types[ALL]
    return [] if count is None or not count.blind else [round(100 * count.blind / count.n)]


def _prepare(findings: Findings, axes: Axes, title: str, places: str) -> None:
    _prepare_shares(axes.set_ylim, axes, title)
    axes.set_xlabel(places, fontsize=8)
    axes.set_xlim(-1, findings.setup.depth + 1)
    for blind in _blind(findings):
        axes.axhline(blind, color=_GREY, ls="--", lw=1)


def _prepare_shares(limit: Callable[[float, float], object], axes: Axes, title: str) -> None:
    limit(-3, 103)
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)


PICTURES: dict[str, Callable[[Findings], Figure]] = {
    "paper-skipping.svg": _draw_skipping,
    "paper-layers.svg": _draw_layers,
    "paper-training.svg": _draw_training,
}
