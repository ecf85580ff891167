"""Row sets, and bits of columns as row sets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from row_sets import indexes_of, members

from skipserve.model.work import (
    Every,
    GatedWork,
    LayerRows,
    Pattern,
    RowSet,
    RowWork,
    Work,
    put,
    take,
)

pytestmark = pytest.mark.fast

X = torch.arange(8.0).view(4, 2)
SOME = indexes_of([1, 3])
NUM_LAYERS = 3


def test_take_gives_the_rows_of_a_set() -> None:
    assert take(X, Every.ALL) is X
    assert take(X, Every.NONE).shape == (0, 2)
    assert torch.equal(take(X, SOME), X[[1, 3]])


def test_put_replaces_the_rows_of_a_set_in_a_copy() -> None:
    before = X.clone()
    assert put(X, Every.ALL, -X) is not X
    assert put(X, Every.NONE, X[:0]) is X
    changed = put(X, SOME, torch.zeros(2, 2))
    assert torch.equal(changed, torch.tensor([[0.0, 1], [0, 0], [4, 5], [0, 0]]))
    assert torch.equal(X, before)


@pytest.mark.parametrize(
    ("rows", "is_idle"),
    [
        (LayerRows(), False),
        (LayerRows(attention=Every.NONE, kv=Every.NONE, ffn=Every.NONE), True),
        (LayerRows(attention=Every.NONE, ffn=Every.NONE), False),
        (LayerRows(attention=Every.NONE, kv=Every.NONE, ffn=SOME), False),
    ],
)
def test_a_layer_is_idle_when_no_row_needs_it(rows: LayerRows, is_idle: bool) -> None:
    assert rows.is_idle is is_idle


def test_a_layer_names_its_rows_as_work_does() -> None:
    assert LayerRows._fields == tuple(bit.name.lower() for bit in Work if bit.name)


def works(num_rows: st.SearchStrategy[int]) -> st.SearchStrategy[NDArray[np.uint8]]:
    """Draw bits for some columns or rows, [N, L]."""
    return num_rows.flatmap(
        lambda n: st.binary(min_size=n * NUM_LAYERS, max_size=n * NUM_LAYERS).map(
            lambda bits: np.frombuffer(bits, np.uint8).reshape(n, NUM_LAYERS)
        )
    )


@given(works(st.integers(1, 6)), st.data())
def test_rows_do_what_their_columns_say(columns: NDArray[np.uint8], data: st.DataObject) -> None:
    place = st.integers(0, len(columns) - 1)
    of_rows = np.array(data.draw(st.lists(place, min_size=1, max_size=9)))
    occurs = np.isin(np.arange(len(columns)), of_rows)
    pattern = Pattern.find(columns, occurs)
    work = RowWork.select(pattern, [indexes_of(it) for it in pattern.indexes(of_rows)])
    for layer, kind in enumerate(work.kind_of):
        for bit, rows in zip(Work, work.kinds[kind], strict=True):
            expected = np.flatnonzero(columns[of_rows, layer] & bit.value).tolist()
            assert members(rows, len(of_rows)) == expected


@given(works(st.integers(1, 6)))
def test_what_is_the_same_is_one_object(rows: NDArray[np.uint8]) -> None:
    work = RowWork.of(rows.T)
    assert len(work.kinds) == len({layer.tobytes() for layer in rows.T})
    by_content: dict[tuple[int, ...], RowSet] = {}
    for row_set in (row_set for kind in work.kinds for row_set in kind):
        content = tuple(members(row_set, len(rows)))
        assert by_content.setdefault(content, row_set) is row_set
    assert set(by_content.values()) <= set(work.sets)


def test_columns_that_do_not_occur_make_no_sets() -> None:
    columns = np.array([[3, 3, 7], [3, 0, 7], [0, 0, 0]], dtype=np.uint8)
    pattern = Pattern.find(columns, np.array([True, True, False]))
    assert pattern.kind_of == (0, 1, 2)
    assert [it.tolist() for it in pattern.indexes(np.array([0, 1, 1]))] == [[0]]
    first, second, third = RowWork.select(pattern, [SOME]).kinds
    assert (first.attention, first.kv, first.ffn) == (Every.ALL, Every.ALL, Every.NONE)
    assert (second.attention, second.kv, second.ffn) == (SOME, SOME, Every.NONE)
    assert (third.attention, third.kv, third.ffn) == (Every.ALL, Every.ALL, Every.ALL)


def test_where_gates_decide_all_rows_take_part_in_all_layers() -> None:
    work = GatedWork(torch.zeros(NUM_LAYERS, 2, dtype=torch.int64))
    assert [work.kinds[kind] for kind in work.kind_of] == [LayerRows()] * NUM_LAYERS
