"""Records of the paper's grid with so many right answers."""

from dataclasses import asdict

from skipserve_training.paper.cells import Cell, grid
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.records import ALL, Count, Record, Score, as_bits

CELLS = {cell.name: cell for cell in grid()}


def _score(right: int, n: int) -> Score:
    bits = as_bits([True] * right + [False] * (n - right))
    return Score({ALL: Count(n, right, right, right, 0)}, bits, bits, 1.0)


def make_record(cell: Cell, right: int, n: int = 1000, trained: int | None = None) -> Record:
    after = None if trained is None else _score(trained, n)
    return Record(asdict(cell), "", _score(right, n), after, None, 10.0, [2, 4], 0.5, {})


def make_findings(**right: int) -> Findings:
    """Make findings of which so many of a thousand answers are right, trained where that is."""
    records = {}
    for name, count in right.items():
        cell = CELLS[name.replace("_", "-")]
        trained = None if cell.training is None else count
        records[cell.name] = make_record(cell, 0 if trained is not None else count, trained=trained)
    return Findings(grid(), records)
