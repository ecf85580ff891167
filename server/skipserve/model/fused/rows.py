"""What the kernels of a block need to know of a forward's rows."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from skipserve.model.batch import KvGroup, Segment
from skipserve.model.transfer import to_device
from skipserve.model.work import (
    Every,
    GatedWork,
    Index,
    Indexes,
    LayerRows,
    RowSet,
    RowWork,
    Work,
    host_indexes,
)
from skipserve_kernels.fused.launch import Selection
from skipserve_kernels.fused.paged_prefill.spans import find_spans


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
        first_chunked: the first row that the index of `chunks` points at.
    """

    selection: Selection
    singles: Selection | None
    chunks: Selection | None = None
    spans: Tensor | None = None
    first_chunked: int = 0


@dataclass(frozen=True)
class FusedRows:
    """The rows of one block; made once for layers that agree.

    Attributes:
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

    group: KvGroup
    kv: Selection | None
    queries: QueryRows | None
    ffn: Selection | None
    early: tuple[FfnNorm, ...] = ()
    late: FfnNorm | None = None
    is_parallel: bool = False
    shares_norm: bool = False
    is_gated: bool = False


def prepare_rows(segment: Segment, span_rows: int) -> dict[int, FusedRows]:
    """Derive what the kernels need, by layer; idle layers are left out.

    Args:
        segment: the rows.
        span_rows: rows of one tile of prefill attention.
    """
    if isinstance(segment.work, GatedWork):
        gates = segment.work.gates
        return {layer: _gated(gates[layer], segment.kv_group(layer)) for layer in segment.layers}
    return segment.prepare(_RowsBuilder(segment, segment.work, span_rows).block)


def _gated(gates: Tensor, group: KvGroup) -> FusedRows:
    every = Selection(len(gates), gates=gates)
    return FusedRows(
        group=group,
        kv=every,
        queries=QueryRows(every, singles=every),
        ffn=every,
        late=FfnNorm(every, places=None, bits=Work.SERIAL),
        is_gated=True,
    )


class _RowsBuilder:
    """What the layers of a segment have in common, made once.

    Numbers that the segment does not hold are found for all layers first: they go to the device in
    one copy.
    """

    def __init__(self, segment: Segment, work: RowWork, span_rows: int) -> None:
        self._num_rows = segment.num_rows
        self._row_starts = segment.row_starts
        counts = np.diff(segment.row_starts)
        # Sequences that come first and have one row each.
        self._num_singles = int((counts != 1).argmax()) if (counts != 1).any() else len(counts)
        self._selections = {rows: self._select(rows) for rows in work.sets}
        kinds = [rows for rows in work.kinds if not rows.is_idle]
        # Spans by the rows that run attention, places by the rows and those of the FFN.
        found: dict[tuple[RowSet, ...], Index] = {}
        if self._num_singles < len(counts):
            for rows in kinds:
                found[rows.attention,] = self._find_spans(rows.attention, span_rows)
        for rows in kinds:
            found |= self._find_places(rows)
        sent = to_device(list(found.values()), segment.kv_groups[0].slots.device)
        self._sent = dict(zip(found, sent, strict=True))
        self._queries = {rows.attention: self._split(rows.attention) for rows in kinds}

    def block(self, rows: LayerRows, group: KvGroup) -> FusedRows:
        """Return what a layer that is not idle needs."""
        parallel = rows.parallel if rows.parallel is not Every.NONE else rows.parallel_shared
        acts_as_one = rows.attention is rows.kv is rows.ffn is parallel
        early = (
            self._norm(rows.parallel, rows.ffn),
            self._norm(rows.parallel_shared, rows.ffn, is_shared=True),
        )
        return FusedRows(
            group=group,
            kv=self._selections[rows.kv],
            queries=self._queries[rows.attention],
            ffn=self._selections[rows.ffn],
            early=tuple(norm for norm in early if norm is not None),
            late=self._norm(rows.serial, rows.ffn),
            is_parallel=acts_as_one,
            shares_norm=rows.parallel_shared is parallel,
        )

    def _select(self, rows: RowSet) -> Selection | None:
        if isinstance(rows, Indexes):
            return Selection(len(rows.host), rows.device)
        return Selection(self._num_rows) if rows is Every.ALL else None

    def _norm(self, rows: RowSet, ffn: RowSet, *, is_shared: bool = False) -> FfnNorm | None:
        """Return some of the FFN's rows as what is normalised together."""
        selection = self._selections[rows]
        if selection is None:
            return None
        return FfnNorm(selection, self._sent.get((rows, ffn)), is_shared)

    def _split(self, rows: RowSet) -> QueryRows | None:
        """Tell rows that are alone in their sequence from chunks."""
        selection = self._selections[rows]
        if selection is None:
            return None
        num_singles = int(self._indexes(rows).searchsorted(self._num_singles))
        num_chunked = selection.num_rows - num_singles
        index = selection.index
        singles = Selection(num_singles, None if index is None else index[:num_singles])
        if not num_chunked:
            return QueryRows(selection, singles)
        return QueryRows(
            selection,
            singles=singles if num_singles else None,
            chunks=Selection(num_chunked, None if index is None else index[num_singles:]),
            spans=self._sent[rows,],
            first_chunked=0 if index is not None else num_singles,
        )

    def _find_spans(self, attention: RowSet, span_rows: int) -> Index:
        """Find the tiles of the rows that are not alone in their sequence, [G, 3]."""
        counts = np.diff(self._indexes(attention).searchsorted(self._row_starts))
        counts[: self._num_singles] = 0
        return find_spans(counts, span_rows)

    def _find_places(self, rows: LayerRows) -> dict[tuple[RowSet, ...], Index]:
        """Find where rows of each kind stand among those of the FFN, if they are some of them."""
        return {
            (own, rows.ffn): self._indexes(rows.ffn).searchsorted(self._indexes(own))
            for own in (rows.parallel, rows.parallel_shared, rows.serial)
            if own not in (rows.ffn, Every.NONE)
        }

    def _indexes(self, rows: RowSet) -> Index:
        return host_indexes(rows, self._num_rows)
