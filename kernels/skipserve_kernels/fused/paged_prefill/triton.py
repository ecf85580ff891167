"""Causal attention of many rows a sequence over its pages, for GPUs from sm_80 on.

In 16 bits and float32; head sizes are powers of two from 16 to 256, page sizes powers of two. Keys
and values are read where they lie.

Shapes: N entries, T rows of the forward, H query heads, K key/value heads, C head size, S slots,
B sequences, W pages at most of one, G spans.
"""

import triton
import triton.language as tl
from torch import Tensor

from skipserve_kernels.fused.launch import Selection
from skipserve_kernels.fused.paged import PagedKeyValues
from skipserve_kernels.fused.paged_decode.triton import (
    add_keys,
    columns_that_fit,
    find_slots,
    score_scale,
)
from skipserve_kernels.fused.tiles import Tile, architecture, prefill_tile


def paged_prefill(
    query: Tensor,
    paged: PagedKeyValues,
    out: Tensor,
    selection: Selection,
    spans: Tensor,
    tile: Tile | None = None,
) -> None:
    """Attend from each entry of the spans to positions 0 up to its own of its sequence.

    Scores are scaled by 1 / sqrt(C). A row without a position gives zeros. Entries of no span are
    not computed.

    Args:
        query: [N, H, C].
        paged: keys and values, those of this forward too; positions ascend within a span.
        out: [N, H * C]; rows may be further apart.
        selection: which rows the entries are; it has no gates.
        spans: sequence, first entry and number of entries, at most those of a tile, [G, 3] int64.
        tile: how to compute; None takes the table's.
    """
    paged.check_attention(query, out)
    num_heads, head_size = query.shape[1:]
    assert query.shape[0] == selection.num_rows
    assert selection.gates is None
    assert spans.is_contiguous()
    assert spans.shape[1] == 3
    if not len(spans):
        return

    tile = tile or prefill_tile(query.dtype, architecture(query.device))
    _prefill[(len(spans), num_heads)](
        query,
        paged.keys,
        paged.values,
        paged.tables,
        paged.positions,
        spans,
        out,
        selection.index,
        paged.tables.stride(0),
        OUT_STRIDE=out.stride(0),
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=paged.keys.shape[1],
        HEAD_SIZE=head_size,
        PAGE_SIZE=paged.page_size,
        SCALE=score_scale(head_size),
        ROWS=tile.rows,
        COLUMNS=columns_that_fit(tile, head_size, query.dtype),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


@triton.jit(
    do_not_specialize=["table_stride"],
    do_not_specialize_on_alignment=["TABLES", "POSITIONS", "SPANS", "INDEX"],
)
def _prefill(
    QUERY,
    KEYS,
    VALUES,
    TABLES,
    POSITIONS,
    SPANS,
    OUT,
    INDEX,
    table_stride,
    OUT_STRIDE: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    SCALE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Attend with one head of the entries of one span."""
    # The last spans of a sequence read the most keys: they begin first.
    SPAN = SPANS + 3 * (tl.num_programs(0) - 1 - tl.program_id(0))
    head = tl.program_id(1)
    sequence = tl.load(SPAN)
    offsets = tl.arange(0, ROWS)
    entries = tl.load(SPAN + 1) + offsets
    is_entry = offsets < tl.load(SPAN + 2)
    rows = entries
    if INDEX is not None:
        rows = tl.load(INDEX + entries, mask=is_entry, other=0)
    positions = tl.load(POSITIONS + rows, mask=is_entry, other=-1).to(tl.int32)

    channels = tl.arange(0, HEAD_SIZE)
    places = (entries * NUM_HEADS + head)[:, None] * HEAD_SIZE + channels[None, :]
    query = tl.load(QUERY + places, mask=is_entry[:, None], other=0.0)

    # Whole tiles that all entries see need no mask; then come those up to the last entry's own.
    length = tl.max(positions, 0) + 1
    common = tl.min(tl.where(is_entry, positions, length), 0) + 1
    common = common // COLUMNS * COLUMNS
    TABLE = TABLES + sequence * table_stride
    kv_head = head // (NUM_HEADS // NUM_KV_HEADS)

    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, HEAD_SIZE), tl.float32)
    for start in tl.range(0, common, COLUMNS):
        slots = find_slots(TABLE, start, common, PAGE_SIZE, COLUMNS)
        numbers = (slots * NUM_KV_HEADS + kv_head)[:, None] * HEAD_SIZE + channels[None, :]
        keys = tl.load(KEYS + numbers)
        values = tl.load(VALUES + numbers)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * SCALE
        peak, total, mixed = add_keys(peak, total, mixed, scores, values)
    for start in tl.range(common, length, COLUMNS):
        slots = find_slots(TABLE, start, length, PAGE_SIZE, COLUMNS)
        numbers = (slots * NUM_KV_HEADS + kv_head)[:, None] * HEAD_SIZE + channels[None, :]
        columns = start + tl.arange(0, COLUMNS)
        is_key = columns[:, None] < length
        keys = tl.load(KEYS + numbers, mask=is_key, other=0.0)
        values = tl.load(VALUES + numbers, mask=is_key, other=0.0)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * SCALE
        scores = tl.where(columns[None, :] <= positions[:, None], scores, float("-inf"))
        peak, total, mixed = add_keys(peak, total, mixed, scores, values)

    mixed = mixed / tl.where(total > 0.0, total, 1.0)[:, None]
    # A softmax of nothing is not a number.
    mixed = tl.where(positions[:, None] >= 0, mixed, 0.0)
    places = entries[:, None] * OUT_STRIDE + head * HEAD_SIZE + channels[None, :]
    tl.store(OUT + places, mixed.to(OUT.dtype.element_ty), mask=is_entry[:, None])
