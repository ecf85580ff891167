"""Writes paper.md and its pictures from the records."""

import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from skipserve_training.paper import estimate
from skipserve_training.paper.cells import (
    FULL,
    INFERENCE,
    LADDER,
    LAYERS,
    TRAINING,
    VISUAL,
    Cell,
    grid,
)
from skipserve_training.paper.claims import NOT_RUN, judge_claims
from skipserve_training.paper.columns import (
    Columns,
    Row,
    percent,
    skipped_columns,
    trained_columns,
)
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.own_words import own_words
from skipserve_training.paper.plots import draw_all
from skipserve_training.paper.records import ALL, Record, read_all, setup_of
from skipserve_training.paper.setup import SHIPPED, Setup

PAGE = "paper.md"
_TEMPLATE, _OWN_TEMPLATE = "page_template.md", "own_page_template.md"


def render(findings: Findings) -> str:
    """Return the page."""
    skipped, trained = skipped_columns(findings), trained_columns(findings)
    claims = judge_claims(findings)
    words = {
        "claims": _table(
            ("the paper", "here", ""),
            [(claim.said, claim.found, f"**{claim.verdict}**") for claim in claims],
        ),
        "full": _full(findings.record(FULL)),
        "decoding": _decoding(findings.setup),
        "training": _measured(findings, TRAINING, trained),
        "ladder": _measured(findings, LADDER, trained),
        "inference": _measured(findings, INFERENCE, skipped),
        "layers": _measured(findings, LAYERS, skipped),
        "visual": _measured(findings, VISUAL, skipped),
        "missing": _missing(findings),
    }
    name = _TEMPLATE
    if not findings.setup.is_shipped:
        name, words = _OWN_TEMPLATE, words | own_words(findings)
    return files("skipserve_training.paper").joinpath(name).read_text().format_map(words)


def _full(record: Record | None) -> str:
    if record is None:
        return "not measured yet"
    count = record.untrained.types[ALL]
    return (
        f"{percent(count.exact, count.n)} of {count.n:,} questions exactly "
        f"({percent(count.accepted, count.n)} accepted); blind, "
        f"{percent(count.blind, count.n)}; perplexity {record.perplexity:.0f}"
    )


def _decoding(setup: Setup) -> str:
    if setup.num_beams == 1:
        return "The paper decodes with a beam of 3; neither the server nor this measurement does."
    return f"Here {setup.num_beams} beams are followed, in the paper 3; the server follows one."


def _measured(findings: Findings, group: str, columns: Columns) -> str:
    rows = [Row(findings, record) for _, record in findings.measured(group)]
    cells = [[column(row) for column in columns.values()] for row in rows]
    return _table([*columns], cells) if cells else f"{NOT_RUN.capitalize()}."


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _missing(findings: Findings) -> str:
    """Name what was not run; a group of which nothing was, by its pattern."""
    groups: dict[tuple[str, bool], list[Cell]] = {}
    for cell in findings.missing:
        groups.setdefault((cell.group, cell.is_extra), []).append(cell)
    lines = [
        f"- **{group}**, {len(cells)} cells{_time(findings.setup, cells)}"
        f"{', with `--all`' if is_extra else ''}: {_names(findings, group, cells)}."
        for (group, is_extra), cells in groups.items()
    ]
    return "\n".join(lines) or "All cells were run."


def _time(setup: Setup, cells: Sequence[Cell]) -> str:
    """Say what cells would take, where it is known."""
    if not setup.is_shipped:
        return ""
    return f", about {estimate.in_words(sum(map(estimate.seconds, cells)))} of a core"


def _names(findings: Findings, group: str, cells: Sequence[Cell]) -> str:
    if all(cell.name == cell.baseline for cell, _ in findings.measured(group)):
        return "all"
    return ", ".join(f"`{cell.name}`" for cell in cells)


def main(records: Path, docs: Path) -> None:
    """Write the page and its pictures into a folder.

    Raises:
        ValueError: The records cannot be held together.
    """
    found = read_all(records)
    setup = setup_of(found) or SHIPPED
    findings = Findings(grid(setup), found, setup)
    docs.mkdir(parents=True, exist_ok=True)
    (docs / PAGE).write_text(render(findings))
    draw_all(findings, docs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
