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
    builder = _RowsBuilder(batch, span_rows)
    return [
        None if rows.is_idle else builder.layer(rows, group)
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


# What some numbers are, and the id of the rows that they are of.
_Key = tuple[str, int]


class _RowsBuilder:
    """The rows of one forward; what layers have in common is made once.

    Numbers that the batch does not hold are found for all layers first: they go to the device in
    one copy.
    """

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
        found = self._find(batch.layers)
        sent = to_device(list(found.values()), self._positions.device)
        self._sent = dict(zip(found, sent, strict=True))

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
        return QueryRows(
            selection,
            singles=singles if num_singles else None,
            chunks=Selection(num_chunked, None if index is None else index[num_singles:]),
            spans=self._sent["spans", id(rows)],
            chunk_positions=self._positions if index is not None else self._positions[num_singles:],
        )

    def _early(self, rows: LayerRows) -> Iterator[FfnNorm]:
        """Yield the rows whose FFN reads the block's input."""
        for own, name, is_shared in (
            (rows.parallel, "parallel places", False),
            (rows.parallel_shared, "shared places", True),
        ):
            selection = self._selection(own)
            if selection is not None:
                yield FfnNorm(selection, self._sent.get((name, id(rows))), is_shared)

    def _late(self, rows: LayerRows) -> FfnNorm | None:
        """Return the rows whose FFN reads what attention left."""
        selection = self._selection(rows.ffn)
        if selection is None:
            return None
        if rows.parallel is rows.parallel_shared is Every.NONE:
            return FfnNorm(selection, None)
        serial = self._sent.get(("serial", id(rows)))
        if serial is None or not len(serial):
            return None
        return FfnNorm(Selection(len(serial), serial), self._sent["serial places", id(rows)])

    def _find(self, layers: tuple[LayerRows, ...]) -> dict[_Key, Index]:
        """Find what the layers need beside their row sets."""
        found: dict[_Key, Index] = {}
        has_chunks = self._num_singles < len(self._row_starts) - 1
        for rows in {id(rows): rows for rows in layers if not rows.is_idle}.values():
            key = "spans", id(rows.attention)
            if has_chunks and key not in found:
                found[key] = self._find_spans(rows.attention)
            early = rows.parallel, rows.parallel_shared
            if rows.ffn not in early and early != (Every.NONE, Every.NONE):
                found |= self._find_places(rows)
        return found

    def _find_spans(self, attention: RowSet) -> Index:
        """Find the tiles of the rows that are not alone in their sequence, [G, 3]."""
        counts = np.diff(self._indexes(attention).searchsorted(self._row_starts))
        counts[: self._num_singles] = 0
        return find_spans(counts, self._span_rows)

    def _find_places(self, rows: LayerRows) -> dict[_Key, Index]:
        """Find which of an FFN's rows are serial, and where each kind stands among all of them."""
        ffn = self._indexes(rows.ffn)
        parallel, shared = self._indexes(rows.parallel), self._indexes(rows.parallel_shared)
        is_serial = np.ones(self._num_rows, dtype=np.bool_)
        is_serial[parallel] = is_serial[shared] = False
        serial_places = np.flatnonzero(is_serial[ffn])
        return {
            ("parallel places", id(rows)): ffn.searchsorted(parallel),
            ("shared places", id(rows)): ffn.searchsorted(shared),
            ("serial places", id(rows)): serial_places,
            ("serial", id(rows)): ffn[serial_places],
        }

    def _indexes(self, rows: RowSet) -> Index:
        if isinstance(rows, Indexes):
            return rows.host
        return np.arange(self._num_rows if rows is Every.ALL else 0)
