"""What the blocks of a forward need to know of their rows, beside which rows they are."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skipserve.model.batch import Batch, Every, LayerRows, RowSet, Span, take
from skipserve_kernels.attention.op import QuerySpan


@dataclass(frozen=True)
class BlockRows:
    """The rows of one block with all that follows from them; made once for layers that agree.

    Attributes:
        rows: which rows do what.
        query_factors: rotary factors of the rows that run attention.
        key_factors: rotary factors of the rows that project keys.
        slots: where keys and values go.
        spans: the rows that run attention, by sequence.
    """

    rows: LayerRows
    query_factors: tuple[Tensor, ...]
    key_factors: tuple[Tensor, ...]
    slots: Tensor
    spans: tuple[QuerySpan, ...]


def prepare_rows(batch: Batch, factors: Tensor) -> dict[int, BlockRows]:
    """Derive what blocks need of their rows, once for all layers that share them.

    Args:
        batch: the forward.
        factors: rotary factors of all positions, [P, 2, 1, C].

    Returns:
        By the identity of the LayerRows; idle ones are left out.
    """
    factors = factors.index_select(0, batch.positions)
    distinct = {id(rows): rows for rows in batch.layers if not rows.is_idle}
    return {key: _block_rows(rows, batch, factors) for key, rows in distinct.items()}


def _block_rows(rows: LayerRows, batch: Batch, factors: Tensor) -> BlockRows:
    return BlockRows(
        rows=rows,
        query_factors=take(factors, rows.attention).unbind(1),
        key_factors=take(factors, rows.kv).unbind(1),
        slots=take(batch.slots, rows.kv),
        spans=_query_spans(rows.attention, batch),
    )


def _query_spans(rows: RowSet, batch: Batch) -> tuple[QuerySpan, ...]:
    """Cut the rows that run attention by sequence."""
    if rows is Every.NONE:
        return ()
    indexes = range(batch.spans[-1].stop) if rows is Every.ALL else rows.tolist()
    spans = []
    for span in batch.spans:
        start, stop = bisect_left(indexes, span.start), bisect_left(indexes, span.stop)
        if start < stop:
            spans.append(_query_span(start, indexes[start:stop], span, batch.positions.device))
    return tuple(spans)


def _query_span(start: int, indexes: Sequence[int], span: Span, device: torch.device) -> QuerySpan:
    """Say what the queries of one sequence see.

    Keys end at the last query: later ones may not be there.
    """
    num_queries = len(indexes)
    num_keys = indexes[-1] - span.start + span.num_cached + 1
    is_causal = 1 < num_queries == num_keys
    mask = None
    if num_queries > 1 and not is_causal:
        positions = torch.tensor(indexes, device=device) + (span.num_cached - span.start)
        mask = positions[:, None] >= torch.arange(num_keys, device=device)
    return QuerySpan(start, start + num_queries, span.first_slot, num_keys, mask, is_causal)
