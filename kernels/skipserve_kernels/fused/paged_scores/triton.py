"""How much one row a sequence attends to each of its rows, for GPUs from sm_80 on.

In 16 bits and float32; head sizes are powers of two from 16 to 256, at most 16 query heads share a
key head. Each number of keys is read once, by the first of two launches; the second reads four
bytes a row and head. What a sequence gets depends on its own rows alone: they are cut where its
tiles end, whoever is beside it, and sums are taken in the order of rows and heads.

Shapes: B sequences, N rows of all of them, H query heads, K key heads, C head size, S slots, M
tiles of the longest sequence.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from skipserve_kernels.fused.paged_decode.triton import (
    PADDED_HEADS,
    columns_that_fit,
    score_scale,
)
from skipserve_kernels.fused.tiles import Tile, architecture, scores_tile

# Query heads of which the second launch takes the mean at once, rows of a program, and tiles of
# which it reads the sums at once.
_MEAN_HEADS = 16
_MEAN_ROWS = 64
_MEAN_PARTS = 16
_MEAN_WARPS = 4


def paged_scores(
    query: Tensor,
    keys: Tensor,
    slots: Tensor,
    starts: Tensor,
    longest: int,
    tile: Tile | None = None,
) -> Tensor:
    """Return the mean over heads of the softmax of each row's scores in its sequence, [N] float32.

    Scores are scaled by 1 / sqrt(C), and all of a sequence's rows are seen.

    Args:
        query: of one row of each sequence, [B, H, C].
        keys: of all sequences, [S, K, C].
        slots: where the rows' keys are, sequence by sequence, [N] int64.
        starts: the first row of each sequence, and N, [B + 1] int64.
        longest: rows of the longest sequence, on the host.
        tile: how to compute; None takes the table's.
    """
    num_sequences, num_heads, head_size = query.shape
    num_kv_heads = keys.shape[1]
    group = num_heads // num_kv_heads
    assert query.is_contiguous()
    assert keys.is_contiguous()
    assert slots.is_contiguous()
    assert query.dtype is keys.dtype
    assert keys.shape[2] == head_size
    assert group * num_kv_heads == num_heads
    assert group <= PADDED_HEADS
    assert starts.shape == (num_sequences + 1,)

    tile = tile or scores_tile(architecture(query.device))
    columns = columns_that_fit(tile, head_size, query.dtype)
    num_rows, num_tiles = len(slots), triton.cdiv(longest, columns)
    scores = query.new_empty(num_heads, num_rows, dtype=torch.float32)
    logarithms = query.new_empty(num_sequences, num_heads, num_tiles, dtype=torch.float32)
    out = query.new_empty(num_rows, dtype=torch.float32)
    _score[(num_tiles, num_kv_heads, num_sequences)](
        query,
        keys,
        slots,
        starts,
        scores,
        logarithms,
        num_rows,
        num_tiles,
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        HEAD_SIZE=head_size,
        SCALE=score_scale(head_size),
        HEADS=PADDED_HEADS,
        COLUMNS=columns,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    _mean[(triton.cdiv(longest, _MEAN_ROWS), num_sequences)](
        scores,
        logarithms,
        starts,
        out,
        num_rows,
        num_tiles,
        NUM_HEADS=num_heads,
        COLUMNS=columns,
        HEADS=_MEAN_HEADS,
        ROWS=_MEAN_ROWS,
        PARTS=_MEAN_PARTS,
        num_warps=_MEAN_WARPS,
    )
    return out


@triton.jit(
    do_not_specialize=["num_rows", "num_tiles"],
    do_not_specialize_on_alignment=["SLOTS", "STARTS"],
)
def _score(
    QUERY,
    KEYS,
    SLOTS,
    STARTS,
    SCORES,
    LOGARITHMS,
    num_rows,
    num_tiles,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    SCALE: tl.constexpr,
    HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Score one tile of a sequence's keys by the query heads of one group.

    Scores are those of a softmax that takes powers of two. The logarithm of a tile's sum is what
    its keys weigh together.
    """
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = tl.program_id(2)
    first = tl.load(STARTS + sequence)
    end = tl.load(STARTS + sequence + 1)
    rows = first + tile * COLUMNS + tl.arange(0, COLUMNS)
    if first + tile * COLUMNS >= end:
        return

    heads = tl.arange(0, HEADS)
    channels = tl.arange(0, HEAD_SIZE)
    is_head = heads < GROUP
    is_row = rows < end
    head = sequence.to(tl.int64) * (NUM_KV_HEADS * GROUP) + kv_head * GROUP + heads
    places = head[:, None] * HEAD_SIZE + channels[None, :]
    query = tl.load(QUERY + places, mask=is_head[:, None], other=0.0)
    slots = tl.load(SLOTS + rows, mask=is_row, other=0)
    numbers = (slots * NUM_KV_HEADS + kv_head)[:, None] * HEAD_SIZE + channels[None, :]
    keys = tl.load(KEYS + numbers, mask=is_row[:, None], other=0.0)
    scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * SCALE
    scores = tl.where(is_row[None, :], scores, float("-inf"))

    own_heads = (kv_head * GROUP + heads).to(tl.int64)
    places = own_heads[:, None] * num_rows + rows[None, :]
    tl.store(SCORES + places, scores, mask=is_head[:, None] & is_row[None, :])
    peak = tl.max(scores, 1)
    total = tl.sum(tl.exp2(scores - peak[:, None]), 1)
    tl.store(LOGARITHMS + head * num_tiles + tile, peak + tl.log2(total), mask=is_head)


@triton.jit(
    do_not_specialize=["num_rows", "num_tiles"],
    do_not_specialize_on_alignment=["STARTS"],
)
def _mean(
    SCORES,
    LOGARITHMS,
    STARTS,
    OUT,
    num_rows,
    num_tiles,
    NUM_HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Turn the scores of some rows of a sequence into their mean share over all heads."""
    sequence = tl.program_id(1)
    first = tl.load(STARTS + sequence)
    end = tl.load(STARTS + sequence + 1)
    rows = first + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if first + tl.program_id(0) * ROWS >= end:
        return
    is_row = rows < end
    num_parts = tl.cdiv((end - first).to(tl.int32), COLUMNS)

    mean = tl.zeros((ROWS,), tl.float32)
    for first_head in tl.range(0, NUM_HEADS, HEADS):
        heads = first_head + tl.arange(0, HEADS)
        # Heads of the padding take the last one's sum, and have no scores.
        own_heads = tl.minimum(heads, NUM_HEADS - 1).to(tl.int64)
        PART = LOGARITHMS + (sequence.to(tl.int64) * NUM_HEADS + own_heads) * num_tiles
        peak = tl.full((HEADS,), float("-inf"), tl.float32)
        total = tl.zeros((HEADS,), tl.float32)
        for start in tl.range(0, num_parts, PARTS):
            parts = start + tl.arange(0, PARTS)
            is_part = (parts < num_parts)[None, :]
            places = PART[:, None] + parts[None, :]
            logarithms = tl.load(places, mask=is_part, other=float("-inf"))
            new_peak = tl.maximum(peak, tl.max(logarithms, 1))
            total *= tl.exp2(peak - new_peak)
            total += tl.sum(tl.exp2(logarithms - new_peak[:, None]), 1)
            peak = new_peak
        places = own_heads[:, None] * num_rows + rows[None, :]
        is_score = (heads < NUM_HEADS)[:, None] & is_row[None, :]
        scores = tl.load(SCORES + places, mask=is_score, other=float("-inf"))
        mean += tl.sum(tl.exp2(scores - (peak + tl.log2(total))[:, None]), 0)
    tl.store(OUT + rows, mean / NUM_HEADS, mask=is_row)
