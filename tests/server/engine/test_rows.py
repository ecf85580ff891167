"""Plans as bits, and bits as row sets."""

import numpy as np
import pytest

from skipserve.engine.rows import Work, distinct_layers, plan_work
from skipserve.model.batch import Every
from skipserve_policies.plan import Cell, Ffn, Pair, Plan, TokenClass

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("cell", "work"),
    [
        (Cell(), Work.ATTENTION | Work.KV | Work.FFN),
        (Cell(ffn=Ffn.NONE), Work.ATTENTION | Work.KV),
        (Cell(attention=False), Work.FFN),
        (Cell(attention=False, ffn=Ffn.NONE), Work(0)),
        (Cell(ffn=Ffn.PARALLEL), Work.ATTENTION | Work.KV | Work.FFN | Work.PARALLEL),
        (Cell(False, Ffn.PARALLEL_SHARED), Work.FFN | Work.PARALLEL_SHARED),
        (Cell(pair=Pair.FIRST), Work.ATTENTION | Work.KV | Work.FFN | Work.PAIR_FIRST),
        (Cell(pair=Pair.SECOND), Work.ATTENTION | Work.KV | Work.FFN | Work.PAIR_SECOND),
    ],
)
def test_a_cell_is_bits(cell: Cell, work: Work) -> None:
    assert (plan_work(Plan(((cell,),) * len(TokenClass))) == work.value).all()


def test_a_frozen_row_projects_keys_and_values_alone() -> None:
    columns = [(Cell(),)] * len(TokenClass)
    columns[TokenClass.VISUAL] = (Cell(attention=False, ffn=Ffn.NONE),)
    work = plan_work(Plan(tuple(columns)))
    assert work[TokenClass.VISUAL, 0] == Work.KV.value


def test_layers_at_which_all_do_the_same_are_one() -> None:
    work = np.array([[3, 3, 7], [3, 0, 7]], dtype=np.uint8)
    distinct, places = distinct_layers(work, np.array([0, 1, 1]))
    assert places == [0, 1, 2]
    assert distinct[0]["attention"] is Every.ALL
    assert distinct[0]["ffn"] is Every.NONE
    np.testing.assert_array_equal(distinct[1]["kv"], [0])
    assert distinct[2]["ffn"] is Every.ALL

    assert distinct_layers(work[:, [0, 1, 0, 1]], np.array([0, 1]))[1] == [0, 1, 0, 1]
