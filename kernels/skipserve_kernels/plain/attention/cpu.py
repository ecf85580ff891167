"""Attention on the CPU: keys are read where they lie, run by run, and never copied or padded.

The results of a query's runs are merged by the logarithms of their sums of exponentials. Only a
private operator of torch returns those, so whether it works is asked first.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve_kernels.plain.attention.cpu_layout import Block, Chunk, Layout, Merge, Reads

# What one read gives: the mixed values [1, H, Q, C], and the logarithms [1, H, Q].
Part = tuple[Tensor, Tensor]


def cache_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type to keep keys and values in.

    torch's attention reads float32 keys ten times as fast as 16-bit ones when there is one query:
    0.10 against 1.28 ms for 300 keys of 16 heads of 64, and is no slower for many. So 16-bit keys
    are kept as float32, which holds them exactly.
    """
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


@cache
def can_merge() -> bool:
    """Return whether this torch attends with grouped queries and returns the logarithms."""
    query, keys = torch.ones(1, 4, 1, 2), torch.zeros(1, 2, 3, 2)
    try:
        mixed, logarithms = _attend(query, keys, keys + 1)
    except (AttributeError, RuntimeError, ValueError):
        return False
    expected = torch.full((1, 4, 1), 3.0).log()
    return bool((mixed == 1).all()) and torch.allclose(logarithms, expected)


def attention(
    query: Tensor,
    new: tuple[Tensor, Tensor],
    stored: tuple[Tensor, Tensor],
    layout: Layout,
) -> Tensor:
    """Attend for all sequences.

    Args:
        query: [T, H, C].
        new: the new keys and values of the layer, [N, K, C] each.
        stored: all that is in the cache, the new ones too, [1, K, S, C] each.
        layout: who reads what.

    Returns:
        [T, H, C].
    """
    if not layout.chunks:
        return _attend_singles(query, stored, layout.reads)
    mixed = torch.empty_like(query)
    if layout.reads.queries:
        mixed.index_copy_(0, layout.singles, _attend_singles(query, stored, layout.reads))
    for chunk in layout.chunks:
        mixed[chunk.start : chunk.stop] = _attend_chunk(query, new, stored, chunk)
    return mixed


def _attend_singles(query: Tensor, stored: tuple[Tensor, Tensor], reads: Reads) -> Tensor:
    """Attend for the sequences with one query each: [N, H, C]."""
    keys, values = stored
    by_query = torch.split(query.unsqueeze(2), 1)
    read = (
        (by_query[index], keys.narrow(2, slot, length), values.narrow(2, slot, length))
        for index, slot, length in zip(reads.queries, reads.slots, reads.lengths, strict=True)
    )
    if reads.merge is None:
        # The public function takes 2 us less a call.
        is_grouped = query.shape[1] != keys.shape[1]
        results = [F.scaled_dot_product_attention(*x, enable_gqa=is_grouped) for x in read]
        return torch.cat(results).squeeze(2)
    parts = [_attend(*x) for x in read]
    mixed, sums = (torch.cat(column) for column in zip(*parts, strict=True))
    return _merge_reads(mixed.squeeze(2), sums, reads.merge)


def _merge_reads(mixed: Tensor, logarithms: Tensor, merge: Merge) -> Tensor:
    """Join the results [R, H, C] of reads, given the logarithms [R, H, 1] of their weights."""
    num_heads = mixed.shape[1]
    table = logarithms.new_full((*merge.shape, num_heads, 1), -torch.inf)
    table.view(-1, num_heads, 1).index_copy_(0, merge.places, logarithms)
    weights = table.softmax(1).view(-1, num_heads, 1).index_select(0, merge.places)
    merged = mixed.new_zeros(merge.shape[0], *mixed.shape[1:])
    return merged.index_add_(0, merge.targets, mixed * weights)


def _attend_chunk(
    query: Tensor, new: tuple[Tensor, Tensor], stored: tuple[Tensor, Tensor], chunk: Chunk
) -> Tensor:
    """Attend for the queries of one sequence: [Q, H, C]."""
    turned = query[chunk.start : chunk.stop].transpose(0, 1).unsqueeze(0)
    keys, values = (x[chunk.first_new :].transpose(0, 1).unsqueeze(0) for x in new)
    parts = [_attend_new(turned, keys, values, chunk.blocks)]
    keys, values = stored
    parts += [_attend(turned, keys.narrow(2, *r), values.narrow(2, *r)) for r in chunk.reads]
    return _merge_parts(parts)[0].transpose(0, 1)


def _attend_new(query: Tensor, keys: Tensor, values: Tensor, blocks: tuple[Block, ...]) -> Part:
    """Attend for queries [1, H, Q, C] to new keys [1, K, N, C] from their sequence's first on."""
    parts = [
        _attend(
            some,
            keys[:, :, : block.num_new],
            values[:, :, : block.num_new],
            is_causal=block.bias is None,
            bias=block.bias,
        )
        for some, block in zip(
            torch.split(query, [block.num_queries for block in blocks], dim=2), blocks, strict=True
        )
    ]
    if len(parts) == 1:
        return parts[0]
    # Joined so that what belongs to a row lies together.
    mixed = torch.cat([mixed.transpose(1, 2) for mixed, _ in parts], dim=1).transpose(1, 2)
    return mixed, torch.cat([sums for _, sums in parts], dim=2)


def _merge_parts(parts: list[Part]) -> Tensor:
    """Join what the same queries got from several reads."""
    merged, _ = parts[0]
    if len(parts) == 1:
        return merged
    weights = torch.stack([sums for _, sums in parts]).softmax(0).unsqueeze(-1)
    merged = merged * weights[0]
    for (mixed, _), weight in zip(parts[1:], weights[1:], strict=True):
        merged.addcmul_(mixed, weight)
    return merged


def _attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    is_causal: bool = False,
    bias: Tensor | None = None,
) -> Part:
    """Attend for queries [1, H, Q, C] to keys [1, K, N, C]."""
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    if bias is None:
        mixed, sums = operator(query, keys, values, 0.0, is_causal)
    else:
        mixed, sums = operator(query, keys, values, attn_mask=bias.to(query.dtype))
    return mixed, sums
