"""Plans as bits, and bits as row sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_strategies import plans

from skipserve.engine.rows import NUM_CLASSES, HostRows, PlanTable, plan_work
from skipserve.model.batch import Every, Work
from skipserve_policies.plan import Cell, Ffn, Pair, Plan, TokenClass

pytestmark = pytest.mark.fast

NUM_LAYERS = 4
FULL = Plan.full(3)
FULL_WORK = Work.ATTENTION | Work.KV | Work.FFN | Work.SERIAL


@pytest.mark.parametrize(
    ("cell", "work"),
    [
        (Cell(), FULL_WORK),
        (Cell(ffn=Ffn.NONE), Work.ATTENTION | Work.KV),
        (Cell(attention=False), Work.FFN | Work.SERIAL),
        (Cell(attention=False, ffn=Ffn.NONE), Work(0)),
        (Cell(ffn=Ffn.PARALLEL), Work.ATTENTION | Work.KV | Work.FFN | Work.PARALLEL),
        (Cell(False, Ffn.PARALLEL_SHARED), Work.FFN | Work.PARALLEL_SHARED),
        (Cell(pair=Pair.FIRST), FULL_WORK | Work.PAIR_FIRST),
        (Cell(pair=Pair.SECOND), FULL_WORK | Work.PAIR_SECOND),
    ],
)
def test_a_cell_is_bits(cell: Cell, work: Work) -> None:
    assert (plan_work(Plan(((cell,),) * len(TokenClass))) == work.value).all()


def test_a_frozen_row_projects_keys_and_values_alone() -> None:
    columns = [(Cell(),)] * len(TokenClass)
    columns[TokenClass.VISUAL] = (Cell(attention=False, ffn=Ffn.NONE),)
    work = plan_work(Plan(tuple(columns)))
    assert work[TokenClass.VISUAL, 0] == Work.KV.value


def _without_ffn(layer: int) -> Plan:
    """Return the plan of three layers in which generated rows have no FFN at one."""
    columns = list(FULL.columns)
    generated = list(columns[TokenClass.GENERATED])
    generated[layer] = Cell(ffn=Ffn.NONE)
    columns[TokenClass.GENERATED] = tuple(generated)
    return Plan(tuple(columns))


def _generated(*indexes: int) -> np.ndarray:
    return np.array([index * NUM_CLASSES + TokenClass.GENERATED for index in indexes])


def test_layers_at_which_all_do_the_same_are_one() -> None:
    table = PlanTable(3)
    full, skipping = table.acquire(FULL), table.acquire(_without_ffn(1))
    host = table.rows(_generated(full, skipping, full))
    assert host.places == (0, 1, 0)
    assert host.layers[0]["ffn"] is Every.ALL
    assert host.layers[1]["attention"] is Every.ALL
    place = host.layers[1]["ffn"]
    assert isinstance(place, int)
    np.testing.assert_array_equal(host.indexes[place], [0, 2])


def test_a_layer_that_the_whole_batch_skips_is_none() -> None:
    table = PlanTable(3)
    table.acquire(FULL)
    host = table.rows(_generated(table.acquire(_without_ffn(2)), 1))
    assert host.layers[host.places[2]]["ffn"] is Every.NONE
    assert host.indexes == ()


def test_equal_sets_are_computed_once() -> None:
    table = PlanTable(3)
    host = table.rows(_generated(table.acquire(FULL), table.acquire(_without_ffn(0))))
    table.acquire(_without_ffn(2))
    assert len(host.indexes) == 1
    host = table.rows(_generated(0, 1, 2))
    assert [index.tolist() for index in host.indexes] == [[0, 2], [0, 1]]


def test_an_index_goes_to_another_plan_once_nobody_has_it() -> None:
    table = PlanTable(3)
    first, second = table.acquire(_without_ffn(0)), table.acquire(_without_ffn(1))
    assert table.acquire(_without_ffn(0)) == first
    table.rows(_generated(first, second))
    table.release(_without_ffn(0))
    assert table.acquire(_without_ffn(2)) not in (first, second)
    table.release(_without_ffn(0))
    assert table.num_plans == 2
    assert table.acquire(FULL) == first
    host = table.rows(_generated(first, second))
    assert host.layers[host.places[0]]["ffn"] is Every.ALL
    assert host.layers[host.places[1]]["ffn"] == 0


def test_a_new_plan_leaves_the_patterns_of_others() -> None:
    table = PlanTable(3)
    first, second = table.acquire(_without_ffn(0)), table.acquire(_without_ffn(1))
    layers = table.rows(_generated(first)).layers
    table.acquire(_without_ffn(2))
    table.release(_without_ffn(1))
    assert table.acquire(FULL) == second
    assert table.rows(_generated(first)).layers is layers


def test_a_plan_that_comes_back_finds_its_patterns() -> None:
    table = PlanTable(3)
    layers = table.rows(_generated(table.acquire(FULL))).layers
    table.release(FULL)
    assert table.num_plans == 0
    assert table.rows(_generated(table.acquire(FULL))).layers is layers


@given(st.lists(st.tuples(plans(NUM_LAYERS), st.booleans()), max_size=8))
def test_patterns_follow_plans_that_come_and_go(steps: list[tuple[Plan, bool]]) -> None:
    table = PlanTable(NUM_LAYERS)
    held: list[tuple[Plan, int]] = []
    for plan, releases in steps:
        if releases and held:
            table.release(held.pop(0)[0])
        held.append((plan, table.acquire(plan)))
        host = table.rows(_generated(*(index for _, index in held)))
        works = [plan_work(plan)[TokenClass.GENERATED] for plan, _ in held]
        for layer in range(NUM_LAYERS):
            expected = [row for row, work in enumerate(works) if work[layer] & Work.FFN.value]
            assert _members(host, layer, "ffn", len(held)) == expected


@given(st.lists(plans(NUM_LAYERS), min_size=1, max_size=5), st.data())
def test_rows_are_those_whose_column_says_so(drawn: list[Plan], data: st.DataObject) -> None:
    table = PlanTable(NUM_LAYERS)
    indexes = [table.acquire(plan) for plan in drawn]
    pairs = data.draw(
        st.lists(
            st.tuples(st.sampled_from(range(len(drawn))), st.sampled_from(TokenClass)),
            min_size=1,
            max_size=9,
        )
    )
    host = table.rows(np.array([indexes[i] * NUM_CLASSES + c for i, c in pairs]))
    for layer, place in enumerate(host.places):
        works = [Work(int(plan_work(drawn[i])[c, layer])) for i, c in pairs]
        for name in host.layers[place]:
            bit = Work[name.upper()]
            expected = [row for row, work in enumerate(works) if bit in work]
            assert _members(host, layer, name, len(pairs)) == expected


def _members(host: HostRows, layer: int, name: str, num_rows: int) -> list[int]:
    rows = host.layers[host.places[layer]][name]
    if isinstance(rows, Every):
        return list(range(num_rows)) if rows is Every.ALL else []
    members: list[int] = host.indexes[rows].tolist()
    assert 0 < len(members) < num_rows, "a set that needs no index has one"
    return members


def test_patterns_are_not_kept_without_bound() -> None:
    table = PlanTable(3)
    for first in range(20):
        table.acquire(_without_ffn(first % 3))
        for second in range(3):
            table.rows(_generated(0, min(second, table.num_plans - 1)))
    assert len(table._patterns) <= 256
