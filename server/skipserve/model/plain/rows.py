"""What the blocks of a forward need to know of their rows, beside which rows they are."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from skipserve.model.batch import Batch, Every, Indexes, KvGroup, LayerRows, RowSet, take
from skipserve_kernels.attention.layout import Index, Runs, find_queries, find_runs
from skipserve_kernels.attention.op import Layout, prepare


@dataclass(frozen=True)
class BlockRows:
    """The rows of one block with all that follows from them; made once for layers that agree.

    Attributes:
        rows: which rows do what.
        query_factors: rotary factors of the rows that run attention.
        key_factors: rotary factors of the rows that project keys.
        slots: where keys and values go.
        layout: what the rows that run attention read; None if there are none.
    """

    rows: LayerRows
    query_factors: tuple[Tensor, ...]
    key_factors: tuple[Tensor, ...]
    slots: Tensor
    layout: Layout | None


# Layers agree when both are the same objects.
_Key = tuple[int, int]


def block_key(rows: LayerRows, group: KvGroup) -> _Key:
    """Return the key under which `prepare_rows` keeps what a layer needs."""
    return id(rows), id(group)


def prepare_rows(batch: Batch, factors: Tensor, page_size: int) -> dict[_Key, BlockRows]:
    """Derive what blocks need of their rows, once for all layers that agree.

    Args:
        batch: the forward.
        factors: rotary factors of all positions, [P, 2, 1, C].
        page_size: positions in a page.

    Returns:
        By `block_key`; idle layers are left out.
    """
    spans = _Spans(batch, factors.index_select(0, batch.positions))
    runs = {id(group): spans.runs(group, page_size) for group in _distinct(batch.kv_group)}
    layers = zip(batch.layers, batch.kv_group, strict=True)
    launched = {block_key(*layer): layer for layer in layers if not layer[0].is_idle}
    return {key: spans.block(*layer, runs[id(layer[1])]) for key, layer in launched.items()}


def _distinct(groups: tuple[KvGroup, ...]) -> list[KvGroup]:
    return list({id(group): group for group in groups}.values())


class _Spans:
    """The sequences of a batch, on the host.

    Args:
        batch: the forward.
        factors: rotary factors of its rows, [T, 2, 1, C].
    """

    def __init__(self, batch: Batch, factors: Tensor) -> None:
        self._factors = factors
        self._row_starts = np.array(batch.row_starts)
        self._num_cached = np.array(batch.num_cached)
        self._all_rows = np.arange(batch.row_starts[-1])

    def runs(self, group: KvGroup, page_size: int) -> Runs:
        """Find where the positions of all sequences lie, those of this forward too."""
        num_positions = self._num_cached + np.diff(self._row_starts)
        return find_runs(group.tables.host, num_positions, page_size)

    def block(self, rows: LayerRows, group: KvGroup, runs: Runs) -> BlockRows:
        """Derive what one block needs."""
        return BlockRows(
            rows=rows,
            query_factors=take(self._factors, rows.attention).unbind(1),
            key_factors=take(self._factors, rows.kv).unbind(1),
            slots=take(group.slots, rows.kv),
            layout=None if rows.attention is Every.NONE else self._layout(rows, runs),
        )

    def _layout(self, rows: LayerRows, runs: Runs) -> Layout:
        query_rows, key_rows = self._indexes(rows.attention), self._indexes(rows.kv)
        queries = find_queries(query_rows, key_rows, self._row_starts, self._num_cached)
        return prepare(queries, runs, self._factors.device)

    def _indexes(self, rows: RowSet) -> Index:
        if isinstance(rows, Indexes):
            return rows.host
        return self._all_rows if rows is Every.ALL else self._all_rows[:0]
