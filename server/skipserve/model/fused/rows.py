"""What the kernels of a block need to know of a forward's rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from skipserve.model.batch import Batch, Every, Indexes, KvGroup, LayerRows, RowSet, Work
from skipserve.model.transfer import to_device
from skipserve_kernels.paged_prefill.spans import Index, find_spans
from skipserve_kernels.selection import Selection


@dataclass(frozen=True)
class FfnNorm:
    """Rows that are normalised for the FFN together.

    Attributes:
        selection: which rows.
        places: where each goes among the rows of the FFN, [N] int64; None where it is entry i.
        is_shared: whether the attention's gain is used.
        bits: with gates, the Work of those that take part.
    """

    selection: Selection
    places: Tensor | None
    is_shared: bool = False
    bits: int = 0


@dataclass(frozen=True)
class QueryRows:
    """The rows that run attention, those that are alone in their sequence first.

    Attributes:
        selection: all of them.
        singles: those alone in their sequence: entry i of the forward's rows is of sequence i.
        chunks: the others; None if there are none.
        spans: the tiles of the others, [G, 3] int64.
        chunk_positions: positions that the index of `chunks` points into.
    """

    selection: Selection
    singles: Selection | None
    chunks: Selection | None = None
    spans: Tensor | None = None
    chunk_positions: Tensor | None = None


@dataclass(frozen=True)
class FusedRows:
    """The rows of one block; made once for layers that agree.

    Attributes:
        positions: of all rows, [T] int64.
        group: where keys and values lie.
        kv: rows that project keys and values; None if there are none, here and below.
        queries: rows that run attention.
        ffn: rows that run the FFN.
        early: those of them whose FFN reads the block's input.
        late: the others, whose FFN reads what attention left.
        is_parallel: whether all rows do everything in the parallel form.
        shares_norm: whether the FFN of that form reads the attention's norm.
        is_gated: whether gates choose among the rows.
    """

    positions: Tensor
    group: KvGroup
    kv: Selection | None
    queries: QueryRows | None
    ffn: Selection | None
    early: tuple[FfnNorm, ...] = ()
    late: FfnNorm | None = None
    is_parallel: bool = False
    shares_norm: bool = False
    is_gated: bool = False


def prepare_rows(batch: Batch, span_rows: int) -> list[FusedRows | None]:
    """Derive what the kernels need, by layer; None for idle layers.

    Args:
        batch: the forward.
        span_rows: rows of one tile of prefill attention.
    """
    if batch.gates is not None:
        layers = zip(batch.gates, batch.kv_group, strict=True)
        return [_gated(batch.positions, gates, group) for gates, group in layers]
    maker = _Maker(batch, span_rows)
    return [
        None if rows.is_idle else maker.layer(rows, group)
        for rows, group in zip(batch.layers, batch.kv_group, strict=True)
    ]


def _gated(positions: Tensor, gates: Tensor, group: KvGroup) -> FusedRows:
    every = Selection(len(positions), gates=gates)
    return FusedRows(
        positions=positions,
        group=group,
        kv=every,
        queries=QueryRows(every, singles=every),
        ffn=every,
        late=FfnNorm(every, places=None, bits=Work.SERIAL),
        is_gated=True,
    )


class _Maker:
    """The rows of one forward; what layers have in common is made once."""

    def __init__(self, batch: Batch, span_rows: int) -> None:
        self._positions = batch.positions
        self._span_rows = span_rows
        self._row_starts = np.array(batch.row_starts)
        self._num_rows = len(batch.positions)
        counts = np.diff(self._row_starts)
        # Sequences that come first and have one row each.
        self._num_singles = int((counts != 1).argmax()) if (counts != 1).any() else len(counts)
        self._layers: dict[tuple[int, int], FusedRows] = {}
        self._selections: dict[int, Selection] = {}
        self._queries: dict[int, QueryRows] = {}

    def layer(self, rows: LayerRows, group: KvGroup) -> FusedRows:
        """Return what a layer that is not idle needs."""
        key = id(rows), id(group)
        if key not in self._layers:
            self._layers[key] = self._layer(rows, group)
        return self._layers[key]

    def _layer(self, rows: LayerRows, group: KvGroup) -> FusedRows:
        parallel = rows.parallel if rows.parallel is not Every.NONE else rows.parallel_shared
        acts_as_one = rows.attention is rows.kv is rows.ffn is parallel
        early = tuple(self._early(rows)) if not acts_as_one else ()
        return FusedRows(
            positions=self._positions,
            group=group,
            kv=self._selection(rows.kv),
            queries=self._query_rows(rows.attention),
            ffn=self._selection(rows.ffn),
            early=early,
            late=None if acts_as_one else self._late(rows),
            is_parallel=acts_as_one,
            shares_norm=rows.parallel_shared is parallel,
        )

    def _selection(self, rows: RowSet) -> Selection | None:
        """Return one object for all that asks for the same set."""
        if rows is Every.NONE:
            return None
        if id(rows) not in self._selections:
            index = rows.device if isinstance(rows, Indexes) else None
            num_rows = len(rows.host) if isinstance(rows, Indexes) else self._num_rows
            self._selections[id(rows)] = Selection(num_rows, index)
        return self._selections[id(rows)]

    def _query_rows(self, rows: RowSet) -> QueryRows | None:
        selection = self._selection(rows)
        if selection is None:
            return None
        if id(rows) not in self._queries:
            self._queries[id(rows)] = self._split(rows, selection)
        return self._queries[id(rows)]

    def _split(self, rows: RowSet, selection: Selection) -> QueryRows:
        """Tell rows that are alone in their sequence from chunks."""
        indexes = self._indexes(rows)
        num_singles = int(indexes.searchsorted(self._num_singles))
        num_chunked = len(indexes) - num_singles
        index = selection.index
        singles = Selection(num_singles, None if index is None else index[:num_singles])
        if not num_chunked:
            return QueryRows(selection, singles)
        counts = np.diff(indexes.searchsorted(self._row_starts))
        counts[: self._num_singles] = 0
        (spans,) = to_device([find_spans(counts, self._span_rows).ravel()], self._positions.device)
        return QueryRows(
            selection,
            singles=singles if num_singles else None,
            chunks=Selection(num_chunked, None if index is None else index[num_singles:]),
            spans=spans.view(-1, 3),
            chunk_positions=self._positions if index is not None else self._positions[num_singles:],
        )

    def _early(self, rows: LayerRows) -> Iterator[FfnNorm]:
        """Yield the rows whose FFN reads the block's input."""
        for own, is_shared in ((rows.parallel, False), (rows.parallel_shared, True)):
            selection = self._selection(own)
            if selection is not None:
                places = None if own is rows.ffn else self._places(self._indexes(own), rows.ffn)
                yield FfnNorm(selection, places, is_shared)

    def _late(self, rows: LayerRows) -> FfnNorm | None:
        """Return the rows whose FFN reads what attention left."""
        selection = self._selection(rows.ffn)
        if selection is None:
            return None
        if rows.parallel is rows.parallel_shared is Every.NONE:
            return FfnNorm(selection, None)
        early = [self._indexes(rows.parallel), self._indexes(rows.parallel_shared)]
        serial = np.setdiff1d(self._indexes(rows.ffn), np.concatenate(early), assume_unique=True)
        if not len(serial):
            return None
        (index,) = to_device([serial], self._positions.device)
        return FfnNorm(Selection(len(serial), index), self._places(serial, rows.ffn))

    def _places(self, indexes: Index, ffn: RowSet) -> Tensor:
        """Find where some of the FFN's rows stand among all of them."""
        (places,) = to_device([self._indexes(ffn).searchsorted(indexes)], self._positions.device)
        return places

    def _indexes(self, rows: RowSet) -> Index:
        if isinstance(rows, Indexes):
            return rows.host
        return np.arange(self._num_rows if rows is Every.ALL else 0)
