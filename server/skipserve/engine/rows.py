"""Which rows do what at each layer: plans as bits, and bits as row sets, on the host."""

from dataclasses import fields
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from skipserve.model.batch import Every, LayerRows
from skipserve_policies.plan import Cell, Ffn, Pair, Plan, TokenClass

# A row set before it goes to the device: all rows, none, or their ascending indexes.
HostRowSet = Every | NDArray[np.int64]

# The row sets of one block by their names in LayerRows.
HostLayerRows = dict[str, HostRowSet]


class Work(IntFlag):
    """What a row does in a block: the fields of LayerRows as bits, in the same order."""

    ATTENTION = 1
    KV = 2
    FFN = 4
    PARALLEL = 8
    PARALLEL_SHARED = 16
    PAIR_FIRST = 32
    PAIR_SECOND = 64


_FIELDS = dict(zip(Work, (field.name for field in fields(LayerRows)), strict=True))

_WORK_OF_FFN = {
    Ffn.NONE: Work(0),
    Ffn.SERIAL: Work.FFN,
    Ffn.PARALLEL: Work.FFN | Work.PARALLEL,
    Ffn.PARALLEL_SHARED: Work.FFN | Work.PARALLEL_SHARED,
}
_WORK_OF_PAIR = {Pair.NONE: Work(0), Pair.FIRST: Work.PAIR_FIRST, Pair.SECOND: Work.PAIR_SECOND}


def plan_work(plan: Plan) -> NDArray[np.uint8]:
    """Return a plan as bits of Work, [token classes, layers]."""
    return np.array(
        [
            [_cell_work(*cell) for cell in zip(plan.columns[c], plan.kv[c], strict=True)]
            for c in TokenClass
        ],
        dtype=np.uint8,
    )


def _cell_work(cell: Cell, stores_kv: bool) -> Work:
    work = _WORK_OF_FFN[cell.ffn] | _WORK_OF_PAIR[cell.pair]
    if cell.attention:
        work |= Work.ATTENTION
    if stores_kv:
        work |= Work.KV
    return work


def distinct_layers(
    work: NDArray[np.uint8], columns: NDArray[np.int64]
) -> tuple[list[HostLayerRows], list[int]]:
    """Return the distinct layers of a batch, and for each layer which of them it is.

    With two columns of work in three layers, 3 3 7 and 3 0 7 (3 is attention and K/V, 7 the FFN
    besides), and rows of the columns 0 1 1: layer 0 has attention and K/V ALL, layer 1 has them
    at [0], layer 2 has attention, K/V and FFN ALL. All other sets are NONE.

    Args:
        work: bits of Work, [C, layers], one row for each column that some row of the batch has.
        columns: which of them each row of the batch has, [T].
    """
    distinct: list[HostLayerRows] = []
    place_of: dict[bytes, int] = {}
    places = []
    for layer_work in work.T:
        key = layer_work.tobytes()
        if key not in place_of:
            place_of[key] = len(distinct)
            distinct.append(
                {field: _rows_with(bit, layer_work, columns) for bit, field in _FIELDS.items()}
            )
        places.append(place_of[key])
    return distinct, places


def _rows_with(bit: Work, work: NDArray[np.uint8], columns: NDArray[np.int64]) -> HostRowSet:
    """Return the rows whose column has a bit; `work` is one layer's, [C]."""
    has = (work & bit.value) != 0
    if has.all():
        return Every.ALL
    if not has.any():
        return Every.NONE
    return np.flatnonzero(has[columns])
