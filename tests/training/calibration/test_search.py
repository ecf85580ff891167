"""The search, on measures whose best tables are known by trying all."""

from collections.abc import Iterable, Sequence
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve_policies.schema import Action, Scope
from skipserve_training.calibration.search import Effort, Search
from skipserve_training.calibration.tables import FULL, Element, Table

pytestmark = pytest.mark.fast

ELEMENTS = [
    Element(layer, action, Scope.ALL)
    for layer in range(4)
    for action in (Action.SKIP_ATTENTION, Action.SKIP_FFN)
]


class Scripted:
    """Harms and savings that add up, but for pairs that do more harm together.

    Attributes:
        asked: tables whose damage was asked for, in their order.
    """

    def __init__(
        self,
        harms: Sequence[float],
        savings: Sequence[float],
        pairs: dict[tuple[int, int], float] | None = None,
    ) -> None:
        self.harms = dict(zip(ELEMENTS, harms, strict=True))
        self.savings = dict(zip(ELEMENTS, savings, strict=True))
        self.pairs = pairs or {}
        self.asked: list[Table] = []

    def cost(self, table: Table) -> float | None:
        if table.dropper == "impossible":
            return None
        left = 1 if table.dropper is None else 0.8
        return left - sum(self.savings[it] for it in table.elements)

    def damages(self, tables: Sequence[Table]) -> list[float]:
        self.asked += tables
        return [self.damage(table) for table in tables]

    def damage(self, table: Table) -> float:
        own = sum(self.harms[it] for it in table.elements)
        together = sum(
            harm
            for (one, two), harm in self.pairs.items()
            if {ELEMENTS[one], ELEMENTS[two]} <= table.elements
        )
        return own + together + (0.05 if table.dropper else 0)

    def best(self, budget: float, droppers: Iterable[str | None] = (None,)) -> float:
        """Return the least damage within a budget, of all tables there are."""
        tables = (
            Table(frozenset(elements), dropper)
            for dropper in droppers
            for elements in chain.from_iterable(
                combinations(ELEMENTS, count) for count in range(len(ELEMENTS) + 1)
            )
        )
        return min(self.damage(it) for it in tables if (self.cost(it) or 1) <= budget)


def search(measure: Scripted, **effort: int) -> Search:
    return Search(measure, ELEMENTS, Effort(**{"looks": 4, "takes": 1, **effort}))


def test_the_least_harmful_go_first() -> None:
    measure = Scripted([0.4, 0.1, 0.2, 0.8, 0.3, 0.7, 0.6, 0.5], [0.1] * 8)
    found = search(measure).run([], [0.8, 0.6])
    assert {budget: point and point.damage for budget, point in found.items()} == {
        0.8: pytest.approx(0.3),
        0.6: pytest.approx(1.0),
    }
    best = found[0.8]
    assert best is not None
    assert best.table == FULL | [ELEMENTS[1], ELEMENTS[2]]
    assert best.cost == pytest.approx(0.8)


def test_exchanges_find_what_steps_miss() -> None:
    """The two that are cheap alone do great harm together, which only trying them shows."""
    measure = Scripted(
        [0.1, 0.11, 0.5, 0.6, 0.9, 0.9, 0.9, 0.9], [0.1] * 8, pairs={(0, 1): 5.0, (0, 2): 0.3}
    )
    (without,) = search(measure, swaps=0, looks=1).run([], [0.8]).values()
    (within,) = search(measure, swaps=60).run([], [0.8]).values()
    assert without is not None
    assert within is not None
    assert within.damage == pytest.approx(measure.best(0.8)) == pytest.approx(0.61)
    assert within.damage < without.damage


def test_droppers_are_begun_with() -> None:
    measure = Scripted([1.0] * 8, [0.1] * 8)
    (found,) = search(measure).run(["good", "impossible"], [0.7]).values()
    assert found is not None
    assert found.table.dropper == "good"
    assert found.damage == pytest.approx(measure.best(0.7, (None, "good")))


def test_what_saves_nothing_is_never_taken() -> None:
    measure = Scripted([0.0, *[0.5] * 7], [0.0, *[0.1] * 7])
    found = search(measure).run([], [0.8, 0.1])
    assert found[0.1] is None
    best = found[0.8]
    assert best is not None
    assert ELEMENTS[0] not in best.table.elements


def test_nothing_is_measured_twice() -> None:
    measure = Scripted([0.1 * it for it in range(1, 9)], [0.1] * 8, pairs={(0, 1): 1.0})
    search(measure).run(["good"], [0.9, 0.6, 0.4])
    assert len(measure.asked) == len(set(measure.asked))
    assert FULL not in measure.asked


def test_a_search_repeats() -> None:
    harms = [0.3, 0.1, 0.2, 0.8, 0.3, 0.7, 0.6, 0.5]
    asked = []
    for _ in range(2):
        measure = Scripted(harms, [0.05, 0.1] * 4, pairs={(1, 2): 0.4})
        search(measure).run(["good"], [0.8, 0.6])
        asked.append(measure.asked)
    assert asked[0] == asked[1]


shares = st.lists(st.floats(0.01, 1), min_size=8, max_size=8)
savings = st.lists(st.floats(0.01, 0.12), min_size=8, max_size=8)


@given(
    shares,
    savings,
    st.dictionaries(st.tuples(st.integers(0, 7), st.integers(0, 7)), st.floats(0, 2)),
)
def test_what_is_found_keeps_its_word(
    harms: list[float], saved: list[float], pairs: dict[tuple[int, int], float]
) -> None:
    measure = Scripted(harms, saved, {pair: it for pair, it in pairs.items() if pair[0] != pair[1]})
    looked = search(measure, swaps=12)
    found = looked.run(["good"], [0.9, 0.7, 0.5])
    for budget, point in found.items():
        if point is None:
            assert all(it.cost > budget for it in looked.points.values())
            continue
        assert point.cost == measure.cost(point.table)
        assert point.cost <= budget
        assert point.damage == measure.damage(point.table)
        assert point.damage >= measure.best(budget, (None, "good")) - 1e-9
        assert all(it.damage >= point.damage for it in looked.points.values() if it.cost <= budget)
    frontier = looked.frontier()
    assert [it.cost for it in frontier] == sorted((it.cost for it in frontier), reverse=True)
    assert [it.damage for it in frontier] == sorted(it.damage for it in frontier)
    assert frontier[0].table == FULL
