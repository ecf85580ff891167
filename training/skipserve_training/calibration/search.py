"""Looks for tables that cost little and change little. Knows no model: it asks a measure."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from skipserve_training.calibration.tables import FULL, Element, Table

# Exchanges that are drawn for one step, most of which are known or too dear.
_DRAWS = 200

# Called with what a stage has reached.
Told = Callable[[str], None]


class Measure(Protocol):
    """What tells what tables cost and what they do to answers."""

    def cost(self, table: Table) -> float | None:
        """Return the cost as a share of the full model's; None where the model cannot run it."""

    def damages(self, tables: Sequence[Table]) -> list[float]:
        """Return the damage of each; 0 for the full model."""


@dataclass(frozen=True)
class Point:
    """A table that was measured."""

    table: Table
    cost: float
    damage: float


@dataclass(frozen=True)
class Effort:
    """How hard the search tries.

    Attributes:
        looks: additions that are measured before two of them are taken.
        takes: so many of these are taken at once, the best.
        bases: droppers that a search begins with, beside the one with none.
        swaps: exchanges that are measured for each budget.
        seed: draws which.
    """

    looks: int = 8
    takes: int = 2
    bases: int = 2
    swaps: int = 48
    seed: int = 20


@dataclass
class Search:
    """One search; it keeps all that was measured.

    Args:
        measure: costs and damages.
        elements: what tables are made of.
        effort: how hard to try.
        told: hears of each step.
    """

    measure: Measure
    elements: Sequence[Element]
    effort: Effort = field(default_factory=Effort)
    told: Told = lambda _: None
    points: dict[Table, Point] = field(default_factory=lambda: {FULL: Point(FULL, 1.0, 0.0)})

    def run(self, droppers: Sequence[str], budgets: Sequence[float]) -> dict[float, Point | None]:
        """Return the best table within each budget; None where none is.

        Args:
            droppers: what searches may begin with.
            budgets: costs, as shares of the full model's.
        """
        self.look([_alone(element) for element in self.elements])
        for base in (FULL, *self._bases(droppers)):
            self._descend(base, min(budgets))
        for budget in sorted(budgets, reverse=True):
            self._improve(budget)
        return {budget: self.best(budget) for budget in budgets}

    def best(self, budget: float) -> Point | None:
        """Return the measured table of the least damage within a budget; of equals the cheapest."""
        within = [point for point in self.points.values() if point.cost <= budget]
        return min(within, key=lambda point: (point.damage, point.cost), default=None)

    def frontier(self) -> list[Point]:
        """Return what nothing beats that costs as little, the dearest first."""
        found: list[Point] = []
        for point in sorted(self.points.values(), key=lambda it: (it.cost, it.damage)):
            if not found or point.damage < found[-1].damage:
                found.append(point)
        return found[::-1]

    def look(self, tables: Sequence[Table]) -> list[Point]:
        """Measure tables, those that the model can run; each once."""
        new = {
            table: cost
            for table in dict.fromkeys(tables)
            if table not in self.points and (cost := self.measure.cost(table)) is not None
        }
        damages = self.measure.damages(list(new))
        for (table, cost), damage in zip(new.items(), damages, strict=True):
            self.points[table] = Point(table, cost, damage)
        return [self.points[table] for table in tables if table in self.points]

    def _bases(self, droppers: Sequence[str]) -> list[Table]:
        """Return the droppers that pay best: the least damage for what they save."""
        found = self.look([Table(dropper=dropper) for dropper in droppers])
        saving = [point for point in found if point.cost < 1]
        saving.sort(key=lambda point: point.damage / (1 - point.cost))
        return [point.table for point in saving[: self.effort.bases]]

    def _descend(self, base: Table, budget: float) -> None:
        """Add elements, the least harmful for what they save first, until a budget is reached."""
        here, prices = self.points[base], self._prices()
        while here.cost > budget and (tried := self._try_additions(here, prices)):
            taken = [here.table | tried[: self.effort.takes], here.table | tried[:1]]
            here = next(point for point in self.look(taken) if point.cost < here.cost)
            self.told(f"{base.dropper or 'layers'}: {here.cost:.0%}, damage {here.damage:.3f}")

    def _prices(self) -> dict[Element, float]:
        """Return the damage of each element for what it saves, by itself; of those that save."""
        return {
            element: point.damage / (1 - point.cost)
            for element in self.elements
            if (point := self.points.get(_alone(element))) is not None and point.cost < 1
        }

    def _try_additions(self, here: Point, prices: dict[Element, float]) -> list[Element]:
        """Measure the additions that promise most, and return them, the best first.

        What is found of them here is their price from now on; what saves nothing here has none.
        """
        looked: dict[Element, Table] = {}
        for element in sorted(prices.keys() - here.table.elements, key=lambda it: (prices[it], it)):
            table = here.table | [element]
            cost = self.measure.cost(table)
            if cost is None or cost >= here.cost:
                del prices[element]
            else:
                looked[element] = table
            if len(looked) == self.effort.looks:
                break
        for element, point in zip(looked, self.look([*looked.values()]), strict=True):
            prices[element] = (point.damage - here.damage) / (here.cost - point.cost)
        return sorted(looked, key=lambda it: (prices[it], it))

    def _improve(self, budget: float) -> None:
        """Exchange elements of the best table as long as that helps, so many times at most."""
        rng = random.Random(f"{self.effort.seed}/{budget}")
        left, best = self.effort.swaps, self.best(budget)
        while best is not None and left > 0:
            moves = [*islice(self._moves(best.table, budget, rng), min(left, self.effort.looks))]
            self.look(moves)
            left = left - len(moves) if moves else 0
            if (found := self.best(budget)) is not best and found is not None:
                best = found
                self.told(f"budget {budget:.0%}: {best.cost:.0%}, damage {best.damage:.3f}")

    def _moves(self, table: Table, budget: float, rng: random.Random) -> Iterator[Table]:
        """Yield tables within a budget that differ in up to four elements, not yet measured."""
        prices = self._prices()
        inside = sorted(table.elements & prices.keys(), key=lambda it: (-prices[it], it))
        outside = sorted(prices.keys() - table.elements, key=lambda it: (prices[it], it))
        if not inside or not outside:
            return
        for _ in range(_DRAWS):
            gone = {_early(inside, rng) for _ in range(rng.randrange(1, 3))}
            come = {_early(outside, rng) for _ in range(rng.randrange(3))}
            moved = (table - gone) | come
            cost = None if moved in self.points else self.measure.cost(moved)
            if cost is not None and cost <= budget:
                yield moved


def _alone(element: Element) -> Table:
    return Table(frozenset({element}))


def _early(elements: Sequence[Element], rng: random.Random) -> Element:
    """Draw one, those in front more often."""
    return elements[int(len(elements) * rng.random() ** 2)]
