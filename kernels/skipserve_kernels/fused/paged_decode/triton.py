"""Attention of one row a sequence over its pages, for GPUs from sm_80 on, in 16 bits and float32.

Head sizes are powers of two from 16 to 256, page sizes powers of two; at most 16 query heads share
a key/value head. Each number of keys and values is read once.

Shapes: N entries, T rows of the forward, H query heads, K key/value heads, C head size, S slots,
B sequences, W pages at most of one.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from skipserve_kernels.fused.last_arrival import arrives_last
from skipserve_kernels.fused.launch import Launch
from skipserve_kernels.fused.paged import PagedKeyValues
from skipserve_kernels.fused.tiles import Tile, architecture, decode_tile

# The fewest rows that the tensor cores multiply; the query heads of a group are padded to so many.
PADDED_HEADS = 16
# Keys that are read at once fill at most so many bytes, and as many values: several stages of both
# must fit into a multiprocessor's shared memory.
_TILE_BYTES = 2**14


def scratch_sizes(
    max_rows: int, num_heads: int, num_kv_heads: int, head_size: int, arch: int
) -> tuple[int, int]:
    """Return how many parts and arrivals launches for up to so many entries need."""
    num_parts = num_arrivals = 0
    for num_rows in range(1, max_rows + 1):
        splits = decode_tile(num_rows, num_kv_heads, arch).splits
        if splits > 1:
            num_parts = max(num_parts, num_rows * num_heads * splits * (head_size + 1))
            num_arrivals = num_rows * num_kv_heads
    return num_parts, num_arrivals


def score_scale(head_size: int) -> float:
    """Return what scores are multiplied with: of a softmax that takes powers of two."""
    return math.log2(math.e) / math.sqrt(head_size)


def columns_that_fit(tile: Tile, head_size: int, dtype: torch.dtype) -> int:
    """Return how many keys to read at once: fewer than the table says where heads are large."""
    return min(tile.columns, max(16, _TILE_BYTES // (head_size * dtype.itemsize)))


def paged_decode(
    query: Tensor, paged: PagedKeyValues, out: Tensor, launch: Launch, tile: Tile | None = None
) -> None:
    """Attend from the row of each entry to positions 0 up to its own, of the sequence at its place.

    Row r, of the sequence r, is read through the page table r. Scores are scaled by 1 / sqrt(C). A
    row without a position gives zeros.

    Args:
        query: [N, H, C].
        paged: keys and values, these rows' own too.
        out: [N, H * C]; rows may be further apart.
        launch: which rows the entries are.
        tile: how to compute; None takes the table's.
    """
    paged.check_attention(query, out)
    selection, scratch = launch.selection, launch.scratch
    num_heads, head_size = query.shape[1:]
    num_kv_heads = paged.keys.shape[1]
    group = num_heads // num_kv_heads
    assert query.shape[0] == selection.num_rows
    assert group <= PADDED_HEADS

    tile = tile or decode_tile(selection.num_rows, num_kv_heads, architecture(query.device))
    num_parts = selection.num_rows * num_heads * tile.splits
    assert tile.splits == 1 or num_parts * (head_size + 1) <= len(scratch.parts)
    assert tile.splits == 1 or selection.num_rows * num_kv_heads <= len(scratch.arrivals)
    _decode[(selection.num_rows, num_kv_heads, tile.splits)](
        query,
        paged.keys,
        paged.values,
        paged.tables,
        paged.positions,
        out,
        scratch.parts,
        scratch.parts[num_parts * head_size :],
        scratch.arrivals,
        selection.index,
        selection.gates,
        launch.bits,
        paged.tables.stride(0),
        OUT_STRIDE=out.stride(0),
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        HEAD_SIZE=head_size,
        PAGE_SIZE=paged.page_size,
        SCALE=score_scale(head_size),
        HEADS=PADDED_HEADS,
        COLUMNS=columns_that_fit(tile, head_size, query.dtype),
        SPLITS=tile.splits,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


@triton.jit
def find_slots(TABLE, start, end, PAGE_SIZE: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the slots [COLUMNS] int64 of positions from `start`, a multiple of COLUMNS, on.

    Each page's id is loaded once; those of pages from `end` on are not loaded, their slots wrong.
    """
    if PAGE_SIZE >= COLUMNS:
        page = tl.load(TABLE + start // PAGE_SIZE)
        slots = page * PAGE_SIZE + start % PAGE_SIZE + tl.arange(0, COLUMNS)
    else:
        columns = tl.arange(0, COLUMNS // PAGE_SIZE)
        is_used = start + columns * PAGE_SIZE < end
        pages = tl.load(TABLE + start // PAGE_SIZE + columns, mask=is_used, other=0)
        by_page = pages[:, None] * PAGE_SIZE + tl.arange(0, PAGE_SIZE)[None, :]
        slots = tl.reshape(by_page, (COLUMNS,))
    return slots


@triton.jit
def add_keys(peak, total, mixed, scores, values):
    """Take more keys into a softmax over the powers of two of scores, and into what it mixes.

    Args:
        peak: the highest score so far, [Q]; -inf before the first.
        total: the sum of the weights so far, where the peak's is 1, [Q].
        mixed: the sum of the values by weight, [Q, C].
        scores: of the new keys, [Q, N]; -inf for those not to see. A row that has seen none by
            now becomes NaN.
        values: [N, C].

    Returns:
        The new peak, total and mixed.
    """
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    weights = tl.exp2(scores - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    total = total * shrink + tl.sum(weights, 1)
    mixed = mixed * shrink[:, None]
    mixed = tl.dot(weights.to(values.dtype), values, mixed, input_precision="ieee")
    return new_peak, total, mixed


@triton.jit(
    do_not_specialize=["bits", "table_stride"],
    do_not_specialize_on_alignment=[
        "TABLES",
        "POSITIONS",
        "LOGARITHMS",
        "ARRIVALS",
        "INDEX",
        "GATES",
    ],
)
def _decode(
    QUERY,
    KEYS,
    VALUES,
    TABLES,
    POSITIONS,
    OUT,
    PARTS,
    LOGARITHMS,
    ARRIVALS,
    INDEX,
    GATES,
    bits,
    table_stride,
    OUT_STRIDE: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    SCALE: tl.constexpr,
    HEADS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Attend with the query heads of one group of one entry, to one stretch of its keys."""
    entry = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    if GATES is not None and (tl.load(GATES + entry) & bits) == 0:
        return
    row = entry.to(tl.int64)
    if INDEX is not None:
        row = tl.load(INDEX + entry)
    length = (tl.load(POSITIONS + row) + 1).to(tl.int32)

    # Whole tiles; short sequences leave the last splits without keys, and those do not count.
    stretch = tl.maximum(tl.cdiv(tl.cdiv(length, SPLITS), COLUMNS), 1) * COLUMNS
    num_parts = tl.maximum(tl.cdiv(length, stretch), 1)
    if split >= num_parts:
        return
    end = tl.minimum((split + 1) * stretch, length)

    heads = tl.arange(0, HEADS)
    channels = tl.arange(0, HEAD_SIZE)
    is_head = (heads < GROUP)[:, None]
    numbers_of_group = heads[:, None] * HEAD_SIZE + channels[None, :]
    group = entry.to(tl.int64) * NUM_KV_HEADS + kv_head
    QUERY_GROUP = QUERY + group * (GROUP * HEAD_SIZE)
    query = tl.load(QUERY_GROUP + numbers_of_group, mask=is_head, other=0.0)

    peak = tl.full((HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((HEADS,), tl.float32)
    mixed = tl.zeros((HEADS, HEAD_SIZE), tl.float32)
    for start in tl.range(split * stretch, end, COLUMNS):
        slots = find_slots(TABLES + row * table_stride, start, end, PAGE_SIZE, COLUMNS)
        is_key = start + tl.arange(0, COLUMNS) < end
        numbers = (slots * NUM_KV_HEADS + kv_head)[:, None] * HEAD_SIZE + channels[None, :]
        keys = tl.load(KEYS + numbers, mask=is_key[:, None], other=0.0)
        values = tl.load(VALUES + numbers, mask=is_key[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee") * SCALE
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        peak, total, mixed = add_keys(peak, total, mixed, scores, values)
    # Without keys there is nothing to divide.
    mixed = mixed / tl.where(total > 0.0, total, 1.0)[:, None]

    OUT_GROUP = OUT + entry.to(tl.int64) * OUT_STRIDE + kv_head * (GROUP * HEAD_SIZE)
    if num_parts == 1:
        tl.store(OUT_GROUP + numbers_of_group, mixed.to(OUT.dtype.element_ty), mask=is_head)
    else:
        first = group * (SPLITS * GROUP)
        part = first + split * GROUP
        PART = PARTS + part * HEAD_SIZE
        tl.store(PART + numbers_of_group, mixed, mask=is_head, cache_modifier=".cg")
        logarithms = peak + tl.log2(total)
        tl.store(LOGARITHMS + part + heads, logarithms, mask=heads < GROUP, cache_modifier=".cg")
        if arrives_last(ARRIVALS, group, num_parts):
            _join(PARTS, LOGARITHMS, OUT_GROUP, first, num_parts, GROUP, HEAD_SIZE, SPLITS)


@triton.jit
def _join(
    PARTS,
    LOGARITHMS,
    OUT,
    first,
    num_parts,
    GROUP: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Join the parts of a group's heads, in the order of the keys.

    Each part weighs as much as its keys did: the logarithm (to the base 2) of that is known.
    """
    heads = tl.arange(0, triton.next_power_of_2(GROUP))
    channels = tl.arange(0, HEAD_SIZE)
    # Heads of the padding repeat the last one, so that they need no care.
    parts = first + tl.minimum(heads, GROUP - 1)
    places = parts[:, None] * HEAD_SIZE + channels[None, :]
    peak = tl.load(LOGARITHMS + parts, cache_modifier=".cg")
    mixed = tl.load(PARTS + places, cache_modifier=".cg")
    total = tl.full(peak.shape, 1.0, tl.float32)
    for split in tl.static_range(1, SPLITS):
        is_there = split < num_parts
        logarithm = tl.load(
            LOGARITHMS + parts + split * GROUP,
            mask=is_there,
            other=float("-inf"),
            cache_modifier=".cg",
        )
        part = tl.load(
            PARTS + places + split * (GROUP * HEAD_SIZE),
            mask=is_there,
            other=0.0,
            cache_modifier=".cg",
        )
        new_peak = tl.maximum(peak, logarithm)
        shrink = tl.exp2(peak - new_peak)
        weight = tl.exp2(logarithm - new_peak)
        mixed = mixed * shrink[:, None] + part * weight[:, None]
        total = total * shrink + weight
        peak = new_peak
    places = heads[:, None] * HEAD_SIZE + channels[None, :]
    mixed = mixed / total[:, None]
    tl.store(OUT + places, mixed.to(OUT.dtype.element_ty), mask=(heads < GROUP)[:, None])
