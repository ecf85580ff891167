"""What records say when they are held against each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from skipserve_client.evaluate.retention import Interval, are_different, retention
from skipserve_training.paper.cells import Cell
from skipserve_training.paper.records import Record, Score, Way
from skipserve_training.paper.setup import SHIPPED, Setup

# Below it, so unequal losses are taken for a difference.
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Duel:
    """How often one policy kept more of the answers than another, of the same questions."""

    won: int = 0
    lost: int = 0
    even: int = 0

    @property
    def n(self) -> int:
        """Return how many pairs were compared."""
        return self.won + self.lost + self.even


class Findings:
    """Records of the cells of a grid, as far as there are some.

    Attributes:
        setup: whose answers they are of.
    """

    def __init__(
        self, cells: Sequence[Cell], records: Mapping[str, Record], setup: Setup = SHIPPED
    ) -> None:
        self.setup = setup
        self._cells = {cell.name: cell for cell in cells}
        self._records = {name: records[name] for name in self._cells if name in records}

    def measured(self, group: str) -> Iterator[tuple[Cell, Record]]:
        """Yield the cells of a group that were measured, in the order of the grid."""
        for name, record in self._records.items():
            if self._cells[name].group == group:
                yield self._cells[name], record

    @property
    def missing(self) -> list[Cell]:
        """Return the cells that were not measured."""
        return [cell for name, cell in self._cells.items() if name not in self._records]

    def record(self, name: str) -> Record | None:
        """Return a cell's record, if it was measured."""
        return self._records.get(name)

    def kept(self, record: Record, score: Score, way: Way) -> Interval | None:
        """Return the share of the full model's accuracy that is kept on the same questions.

        None where the full model was not measured, or knows no answer.
        """
        baseline = self.record(self._cells[record.name].baseline)
        right = score.right(way)
        reference = [] if baseline is None else baseline.untrained.right(way)[: len(right)]
        return retention(right, reference) if any(reference) else None

    def duel(self, pairs: Sequence[tuple[str, str]], way: Way) -> Duel:
        """Compare cells two by two, on the questions that both were asked."""
        counts = [0, 0, 0]
        for ours, theirs in pairs:
            one, two = self.record(ours), self.record(theirs)
            if one is not None and two is not None:
                counts[_compare(one.untrained.right(way), two.untrained.right(way))] += 1
        return Duel(*counts)


def _compare(one: Sequence[float], two: Sequence[float]) -> int:
    """Return 0 where the first is better, 1 where the second is, 2 where none shows to be."""
    shared = min(len(one), len(two))
    one, two = one[:shared], two[:shared]
    if are_different(one, two) >= _SIGNIFICANT:
        return 2
    return 0 if sum(one) > sum(two) else 1
