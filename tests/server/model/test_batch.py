"""Row sets."""

import pytest
import torch

from skipserve.model.batch import Every, Indexes, LayerRows, put, take

pytestmark = pytest.mark.fast

X = torch.arange(8.0).view(4, 2)
SOME = Indexes.of([1, 3])


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
