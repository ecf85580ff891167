"""Causal, grouped-query attention over cached keys and values: the public functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve_kernels.attention import cpu


@dataclass(frozen=True, slots=True)
class KeyValues:
    """The keys and values of one layer, [1, K, S, C] each: heads come first, slots lie together."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(
        cls,
        num_slots: int,
        num_heads: int,
        head_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Self:
        """Return room in the type that attention reads fastest on the device."""
        if device.type == "cpu":
            dtype = cpu.cache_dtype(dtype)
        shape = (2, num_slots, num_heads, head_size)
        room = torch.zeros(shape, dtype=dtype, device=device).transpose(1, 2)
        return cls(keys=room[:1], values=room[1:])


@dataclass(frozen=True, slots=True)
class QuerySpan:
    """The query rows of one sequence.

    Attributes:
        start: index of the first of them among all query rows.
        stop: index after the last of them.
        first_slot: where the sequence's key of position 0 lives.
        num_keys: keys up to and with the last query's own.
        mask: [Q, num_keys] bool, True where a query sees a key; None where `is_causal` or the
            number of queries says it all: one query sees every key.
        is_causal: the queries are the positions 0 to num_keys - 1.
    """

    start: int
    stop: int
    first_slot: int
    num_keys: int
    mask: Tensor | None = None
    is_causal: bool = False


def store(cache: KeyValues, slots: Tensor, key: Tensor, value: Tensor) -> None:
    """Write keys and values, [T, K, C] each, into their slots [T]."""
    for room, rows in ((cache.keys, key), (cache.values, value)):
        room.index_copy_(2, slots, rows.to(room.dtype).transpose(0, 1).unsqueeze(0))


def attention(query: Tensor, cache: KeyValues, spans: Sequence[QuerySpan]) -> Tensor:
    """Attend to cached keys, each sequence on its own and without padding.

    Args:
        query: [T, H, C]; H is a multiple of K.
        cache: the keys and values of the layer.
        spans: the query rows by sequence, in order and without gaps.

    Returns:
        [T, H * C] in the type of the query.
    """
    if len(spans) == 1:
        return _attend(query, cache, spans[0])
    return torch.cat([_attend(query[s.start : s.stop], cache, s) for s in spans])


def _attend(query: Tensor, cache: KeyValues, span: QuerySpan) -> Tensor:
    """Attend for the queries [Q, H, C] of one sequence."""
    num_queries, num_heads, head_size = query.shape
    mixed = F.scaled_dot_product_attention(
        query.to(cache.keys.dtype).transpose(0, 1).unsqueeze(0),
        cache.keys.narrow(2, span.first_slot, span.num_keys),
        cache.values.narrow(2, span.first_slot, span.num_keys),
        attn_mask=span.mask,
        is_causal=span.is_causal,
        enable_gqa=num_heads != cache.keys.shape[1],
    )
    rows = mixed.transpose(1, 2).reshape(num_queries, num_heads * head_size)
    return rows.to(query.dtype)
