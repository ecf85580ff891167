"""Writes docs/paper.md and its pictures from the records."""

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from skipserve_training.paper import estimate
from skipserve_training.paper.cells import (
    INFERENCE,
    LADDER,
    LAYERS,
    TRAINING,
    VISUAL,
    Cell,
    grid,
)
from skipserve_training.paper.claims import NOT_RUN, judge_claims
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.plots import draw_all
from skipserve_training.paper.records import ALL, Count, Record, Score, Way, read_all

PAGE = "paper.md"
_TEMPLATE = "page_template.md"

# Columns of types: those that belong together are added up.
_TYPES: dict[str, tuple[str, ...]] = {
    "colour": ("colour",),
    "shape": ("shape",),
    "yes/no": ("yes/no, present", "yes/no, absent"),
    "negated": ("negated, present", "negated, absent"),
}

Row = Callable[[Findings, Cell, Record], Sequence[str]]


def render(findings: Findings) -> str:
    """Return the page."""
    baseline = findings.record("full")
    template = files("skipserve_training.paper").joinpath(_TEMPLATE).read_text()
    return template.format(
        claims=_table(
            ("the paper", "here", ""),
            [(claim.said, claim.found, f"**{claim.verdict}**") for claim in judge_claims(findings)],
        ),
        full="not measured yet" if baseline is None else _full(baseline),
        training=_measured(findings, TRAINING, _TRAINED, _trained_row),
        ladder=_measured(findings, LADDER, _TRAINED, _trained_row),
        inference=_measured(findings, INFERENCE, _SKIPPED, _skipped_row),
        layers=_measured(findings, LAYERS, _SKIPPED, _skipped_row),
        visual=_measured(findings, VISUAL, _SKIPPED, _skipped_row),
        missing=_missing(findings),
    )


_SKIPPED = (
    "cell", "blocks", "questions", "kept, exact", "kept, accepted", "exact", "accepted", "begun",
    *_TYPES, "perplexity",
)  # fmt: skip
_TRAINED = (
    "cell", "blocks", "weights gone", "untrained", "trained", "kept, exact", "kept, accepted",
    *_TYPES, "perplexity", "loss", "CPU minutes",
)  # fmt: skip


def _skipped_row(findings: Findings, cell: Cell, record: Record) -> Sequence[str]:
    score = record.untrained
    count = score.types[ALL]
    return (
        cell.name,
        str(len(record.layers)),
        f"{score.n:,}",
        _kept(findings, record, score, Way.EXACT),
        _kept(findings, record, score, Way.ACCEPTED),
        *(_percent(right, count.n) for right in (count.exact, count.accepted, count.begun)),
        *_by_type(score),
        _perplexity(record),
    )


def _trained_row(findings: Findings, cell: Cell, record: Record) -> Sequence[str]:
    before, after = record.untrained.types[ALL], record.last.types[ALL]
    training = record.training
    return (
        cell.name,
        str(len(record.layers)),
        "" if record.sparsity is None else f"{100 * record.sparsity:.1f} %",
        _percent(before.exact, before.n),
        _percent(after.exact, after.n),
        _kept(findings, record, record.last, Way.EXACT),
        _kept(findings, record, record.last, Way.ACCEPTED),
        *_by_type(record.last),
        _perplexity(record),
        "" if training is None else f"{training.loss:.2f}",
        "" if training is None else f"{training.cpu_seconds / 60:.1f}",
    )


def _kept(findings: Findings, record: Record, score: Score, way: Way) -> str:
    kept = findings.kept(record, score, way)
    return "" if kept is None else str(kept)


def _perplexity(record: Record) -> str:
    return f"{record.perplexity:,.0f}" if record.perplexity < 1e6 else f"{record.perplexity:.0e}"


def _by_type(score: Score) -> Iterable[str]:
    for kinds in _TYPES.values():
        counts = [score.types[kind] for kind in kinds if kind in score.types]
        yield _percent(sum(count.exact for count in counts), sum(count.n for count in counts))


def _percent(right: int, n: int) -> str:
    return f"{100 * right / n:.1f} %" if n else ""


def _full(record: Record) -> str:
    count: Count = record.untrained.types[ALL]
    return (
        f"{_percent(count.exact, count.n)} of {count.n:,} questions exactly "
        f"({_percent(count.accepted, count.n)} accepted); blind, "
        f"{_percent(count.blind, count.n)}; perplexity {record.perplexity:.0f}"
    )


def _measured(findings: Findings, group: str, columns: Sequence[str], row: Row) -> str:
    rows = [row(findings, cell, record) for cell, record in findings.measured(group)]
    return _table(columns, rows) if rows else f"{NOT_RUN.capitalize()}."


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _missing(findings: Findings) -> str:
    """Name what was not run; a group of which nothing was, by its pattern."""
    groups: dict[tuple[str, bool], list[Cell]] = {}
    for cell in findings.missing:
        groups.setdefault((cell.group, cell.is_extra), []).append(cell)
    lines = [
        f"- **{group}**, {len(cells)} cells, about {estimate.in_words(cells)} of a core"
        f"{', with `--all`' if is_extra else ''}: {_names(findings, group, cells)}."
        for (group, is_extra), cells in groups.items()
    ]
    return "\n".join(lines) or "All cells were run."


def _names(findings: Findings, group: str, cells: Sequence[Cell]) -> str:
    if all(cell.name == cell.baseline for cell, _ in findings.measured(group)):
        return "all"
    return ", ".join(f"`{cell.name}`" for cell in cells)


def main(records: Path, docs: Path) -> None:
    """Write the page and its pictures into a folder."""
    findings = Findings(grid(), read_all(records))
    (docs / PAGE).write_text(render(findings))
    draw_all(findings, docs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
