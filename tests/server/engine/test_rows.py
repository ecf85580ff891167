"""Bits of columns as row sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_strategies import plans, without_generated_ffn

from skipserve.engine.plans import NUM_CLASSES, PlanEntry, PlanTable, plan_work
from skipserve.engine.rows import HostRows
from skipserve.model.batch import Every, Work
from skipserve_policies.plan import Plan, TokenClass

pytestmark = pytest.mark.fast

NUM_LAYERS = 4
FULL = Plan.full(3)


def _without_ffn(layer: int) -> Plan:
    return without_generated_ffn(3, layer)


def _generated(*indexes: int) -> np.ndarray:
    return np.array([index * NUM_CLASSES + TokenClass.GENERATED for index in indexes])


def test_layers_at_which_all_do_the_same_are_one() -> None:
    table = PlanTable(3)
    full, skipping = table.acquire(FULL).index, table.acquire(_without_ffn(1)).index
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
    host = table.rows(_generated(table.acquire(_without_ffn(2)).index, 1))
    assert host.layers[host.places[2]]["ffn"] is Every.NONE
    assert host.indexes == ()


def test_equal_sets_are_computed_once() -> None:
    table = PlanTable(3)
    host = table.rows(_generated(table.acquire(FULL).index, table.acquire(_without_ffn(0)).index))
    table.acquire(_without_ffn(2))
    assert len(host.indexes) == 1
    host = table.rows(_generated(0, 1, 2))
    assert [index.tolist() for index in host.indexes] == [[0, 2], [0, 1]]


@given(st.lists(st.tuples(plans(NUM_LAYERS), st.booleans()), max_size=8))
def test_patterns_follow_plans_that_come_and_go(steps: list[tuple[Plan, bool]]) -> None:
    table = PlanTable(NUM_LAYERS, max_plans=2)
    held: list[PlanEntry] = []
    for plan, releases in steps:
        if releases and held:
            table.release(held.pop(0))
        held.append(table.acquire(plan))
        host = table.rows(_generated(*(entry.index for entry in held)))
        works = [plan_work(entry.plan)[TokenClass.GENERATED] for entry in held]
        for layer in range(NUM_LAYERS):
            expected = [row for row, work in enumerate(works) if work[layer] & Work.FFN.value]
            assert _members(host, layer, "ffn", len(held)) == expected


@given(st.lists(plans(NUM_LAYERS), min_size=1, max_size=5), st.data())
def test_rows_are_those_whose_column_says_so(drawn: list[Plan], data: st.DataObject) -> None:
    table = PlanTable(NUM_LAYERS)
    indexes = [table.acquire(plan).index for plan in drawn]
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
