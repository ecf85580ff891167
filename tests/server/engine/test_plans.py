"""Plans by their keys: as bits, and as entries that come, are used, and go."""

from itertools import islice, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_strategies import plans, without_generated_ffn
from row_sets import indexes_of

from skipserve.engine.plans import (
    NUM_CLASSES,
    PlanEntry,
    PlanTable,
    UnknownPlanError,
    plan_work,
)
from skipserve.errors import InvalidRequestError
from skipserve.model.work import Every, Indexes, LayerRows, RowWork, Work
from skipserve_policies.plan import Cell, Ffn, Pair, Plan, TokenClass

pytestmark = pytest.mark.fast

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
    return without_generated_ffn(3, layer)


def _generated(*entries: PlanEntry) -> np.ndarray:
    return np.array([it.index * NUM_CLASSES + TokenClass.GENERATED for it in entries])


def _layers(table: PlanTable, *entries: PlanEntry) -> list[LayerRows]:
    """Return what generated rows of some plans do at each layer."""
    columns = _generated(*entries)
    pattern = table.pattern(columns)
    work = RowWork.select(pattern, [indexes_of(it) for it in pattern.indexes(columns)])
    return [work.kinds[kind] for kind in work.kind_of]


def test_a_plan_is_resolved_once_and_then_known_by_its_key() -> None:
    table = PlanTable(3)
    entry = table.acquire(FULL)
    assert entry.plan is FULL
    assert entry.kv_digests == tuple(bytes.fromhex(FULL.kv_digest(c)) for c in TokenClass)
    assert table.acquire(Plan(FULL.columns)) is table.acquire(FULL.key) is entry
    table.release(entry)
    table.release(entry)
    table.release(entry)
    assert table.num_plans == 0
    assert table.acquire(FULL.key) is entry


def test_a_key_that_is_not_here() -> None:
    table = PlanTable(3)
    with pytest.raises(UnknownPlanError):
        table.acquire(FULL.key)
    assert len(table) == 0


def test_another_table_with_the_same_key_is_never_run() -> None:
    """Nobody can make one; if it could be, the first table must not stand for it."""
    table = PlanTable(3)
    table.acquire(FULL)
    other = _without_ffn(1)
    other.__dict__["key"] = FULL.key
    with pytest.raises(InvalidRequestError, match="another skip policy has the key"):
        table.acquire(other)


def test_keys_are_equal_for_equal_tables_alone() -> None:
    cells = [Cell(), Cell(ffn=Ffn.NONE), Cell(attention=False)]
    plans = [Plan((column,) * NUM_CLASSES) for column in product(cells, repeat=2)]
    assert len({plan.key for plan in plans}) == len(plans)
    assert plans[4].key == Plan(plans[4].columns).key
    assert {len(plan.key) for plan in plans} == {32}


def test_of_those_that_nobody_has_the_one_goes_that_was_used_longest_ago() -> None:
    table = PlanTable(3, max_plans=3)
    entries = [table.acquire(_without_ffn(layer)) for layer in range(3)]
    for entry in entries[:2]:
        table.release(entry)
    assert table.acquire(_without_ffn(0).key) is entries[0]
    table.release(entries[0])
    assert table.acquire(FULL).index == entries[1].index
    with pytest.raises(UnknownPlanError):
        table.acquire(_without_ffn(1).key)
    assert table.acquire(_without_ffn(0).key) is entries[0]


def test_plans_in_use_stay() -> None:
    table = PlanTable(3, max_plans=1)
    first, second = table.acquire(FULL), table.acquire(_without_ffn(0))
    assert (len(table), table.num_plans) == (2, 2)
    assert table.acquire(FULL.key) is first
    assert table.acquire(_without_ffn(0).key) is second


def test_many_distinct_plans_grow_nothing() -> None:
    """Each of them is in use once, as those are that requests spell out."""
    table = PlanTable(3, max_plans=8)
    cells = [Cell(a, f) for a in (True, False) for f in (Ffn.NONE, Ffn.SERIAL)]
    columns = list(product(cells, repeat=3))
    for pair in islice(product(columns, repeat=2), 2000):
        entry = table.acquire(Plan((pair[0],) * 3 + (pair[1],)))
        table.pattern(_generated(entry))
        table.release(entry)
    assert len(table) == 8
    assert len(table._work) == 8 * NUM_CLASSES
    assert len(table._patterns) <= 8 * NUM_CLASSES


def test_a_place_that_is_taken_over_means_the_new_plan() -> None:
    table = PlanTable(3, max_plans=2)
    first, second = table.acquire(_without_ffn(0)), table.acquire(_without_ffn(1))
    table.pattern(_generated(first, second))
    table.release(first)
    third = table.acquire(FULL)
    assert third.index == first.index
    rows = _layers(table, third, second)
    assert rows[0].ffn is Every.ALL
    assert isinstance(rows[1].ffn, Indexes)
    assert rows[1].ffn.host.tolist() == [0]


def test_a_new_plan_leaves_the_patterns_of_others() -> None:
    table = PlanTable(3, max_plans=2)
    first, second = table.acquire(_without_ffn(0)), table.acquire(_without_ffn(1))
    pattern = table.pattern(_generated(first))
    table.release(second)
    assert table.acquire(FULL).index == second.index
    assert table.pattern(_generated(first)) is pattern


def test_a_plan_that_comes_back_finds_its_patterns() -> None:
    table = PlanTable(3)
    pattern = table.pattern(_generated(table.acquire(FULL)))
    table.release(table.acquire(FULL))
    assert table.pattern(_generated(table.acquire(FULL))) is pattern


@given(st.lists(st.tuples(plans(4), st.booleans()), max_size=8))
def test_patterns_follow_plans_that_come_and_go(steps: list[tuple[Plan, bool]]) -> None:
    table = PlanTable(4, max_plans=2)
    held: list[PlanEntry] = []
    for plan, releases in steps:
        if releases and held:
            table.release(held.pop(0))
        held.append(table.acquire(plan))
        wanted = [plan_work(entry.plan)[TokenClass.GENERATED] for entry in held]
        for layer, rows in enumerate(_layers(table, *held)):
            expected = [row for row, work in enumerate(wanted) if work[layer] & Work.FFN.value]
            some = rows.ffn.host.tolist() if isinstance(rows.ffn, Indexes) else range(len(held))
            assert (list(some) if rows.ffn is not Every.NONE else []) == expected


def test_patterns_are_not_kept_without_bound() -> None:
    table = PlanTable(3)
    for layer in range(3):
        table.acquire(_without_ffn(layer))
    for mix in range(1, 300):
        table.pattern(np.flatnonzero([mix >> column & 1 for column in range(9)]))
    assert 0 < len(table._patterns) <= 256
