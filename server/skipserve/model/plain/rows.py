"""What the blocks of a forward need to know of their rows, beside which rows they are."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from skipserve.model.batch import KvGroup, Segment
from skipserve.model.work import Every, LayerRows, RowSet, host_indexes, take
from skipserve_kernels.plain.attention.layout import find_queries, find_runs
from skipserve_kernels.plain.attention.op import Layout, prepare


@dataclass(frozen=True)
class BlockRows:
    """The rows of one block with all that follows from them; made once for layers that agree.

    Attributes:
        rows: which rows do what.
        query_factors: rotary factors of the rows that run attention; none where heads are not
            turned.
        key_factors: rotary factors of the rows that project keys, likewise.
        slots: where keys and values go.
        layout: what the rows that run attention read; None if there are none.
    """

    rows: LayerRows
    query_factors: tuple[Tensor, ...]
    key_factors: tuple[Tensor, ...]
    slots: Tensor
    layout: Layout | None


def prepare_rows(segment: Segment, factors: Tensor | None, page_size: int) -> dict[int, BlockRows]:
    """Derive what blocks need of their rows, once for all layers that agree.

    Args:
        segment: the rows.
        factors: rotary factors of all positions, [P, 2, 1, C]; None where heads are not turned.
        page_size: positions in a page.

    Returns:
        By layer; idle layers are left out.
    """
    num_rows, device = segment.num_rows, segment.kv_groups[0].slots.device
    # Sequences whose rows are not renumbered share the turns of their layers.
    turns: dict[Tensor, Tensor] = {}
    if factors is not None:
        for group in segment.kv_groups:
            if group.positions not in turns:
                turns[group.positions] = factors.index_select(0, group.positions)
    counts = np.diff(segment.row_starts)
    # Where the positions of all sequences lie, those of this forward too.
    runs = {
        group: find_runs(group.tables.host, group.num_cached + counts, page_size)
        for group in segment.kv_groups
    }

    def layout(rows: LayerRows, group: KvGroup) -> Layout:
        query_rows, key_rows = (host_indexes(it, num_rows) for it in (rows.attention, rows.kv))
        queries = find_queries(query_rows, key_rows, segment.row_starts, group.num_cached)
        return prepare(queries, runs[group], device)

    def factors_of(rows: RowSet, group: KvGroup) -> tuple[Tensor, ...]:
        return () if factors is None else take(turns[group.positions], rows).unbind(1)

    def block(rows: LayerRows, group: KvGroup) -> BlockRows:
        return BlockRows(
            rows=rows,
            query_factors=factors_of(rows.attention, group),
            key_factors=factors_of(rows.kv, group),
            slots=take(group.slots, rows.kv),
            layout=None if rows.attention is Every.NONE else layout(rows, group),
        )

    return segment.prepare(block)
