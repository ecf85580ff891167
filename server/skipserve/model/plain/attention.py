"""The attention of a block, for rows of which some attend and some only project keys and values.

Shapes: T rows, D hidden, H query heads, K key/value heads, C head size.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from skipserve.model.plain.norm import Norm
from skipserve.model.plain.rows import BlockRows
from skipserve.model.work import put, take
from skipserve_kernels.key_values import KeyValues
from skipserve_kernels.plain.attention.op import attention, store
from skipserve_kernels.plain.linear.op import Linear, linear, linear_add
from skipserve_kernels.plain.rotary.op import rotary

# Rotary factors of rows, [R, 1, C] each: cosine and sine; none where heads are not turned.
Factors = tuple[Tensor, ...]


class AttentionPart(Protocol):
    """Adds attention to the residual stream."""

    def add(self, hidden: Tensor, block: BlockRows, cache: KeyValues) -> Tensor:
        """Store keys and values; return `hidden` [T, D] with the attention added to it."""

    def queries(self, hidden: Tensor, factors: Factors, dtype: torch.dtype) -> Tensor:
        """Return the queries of rows [R, D], in the cache's type, [R, H, C]."""

    def keys(self, hidden: Tensor, factors: Factors, dtype: torch.dtype) -> Tensor:
        """Return the keys of rows [R, D], in the cache's type, [R, K, C]."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Its weights, and the normalisation of what they are fed.

    Keys and queries are turned by their positions if the rows bring factors: else the positions
    are in the rows.
    """

    norm: Norm
    query: Linear
    key_value: Linear
    output: Linear
    head_size: int

    def add(self, hidden: Tensor, block: BlockRows, cache: KeyValues) -> Tensor:
        """Store keys and values; return `hidden` [T, D] with the attention added to it."""
        rows = block.rows
        normed = self.norm(take(hidden, rows.kv))
        num_kv_heads, dtype = cache.keys.shape[1], cache.keys.dtype
        key_value = linear(normed, self.key_value).to(dtype)
        key, value = key_value.view(-1, 2, num_kv_heads, self.head_size).unbind(1)
        key = _turned(key, block.key_factors)
        store(cache, block.slots, key, value)
        if block.layout is None:
            return hidden
        if rows.attention is not rows.kv:
            normed = self.norm(take(hidden, rows.attention))
        query = linear(normed, self.query).to(dtype).view(len(normed), -1, self.head_size)
        query = _turned(query, block.query_factors)
        mixed = attention(query, (key, value), cache, block.layout)
        residual = take(hidden, rows.attention)
        return put(
            hidden, rows.attention, linear_add(mixed.to(hidden.dtype), self.output, residual)
        )

    def queries(self, hidden: Tensor, factors: Factors, dtype: torch.dtype) -> Tensor:
        """Return the queries of rows [R, D], in the cache's type, [R, H, C]."""
        query = linear(self.norm(hidden), self.query).to(dtype)
        return _turned(query.view(len(hidden), -1, self.head_size), factors)

    def keys(self, hidden: Tensor, factors: Factors, dtype: torch.dtype) -> Tensor:
        """Return the keys of rows [R, D], in the cache's type, [R, K, C]."""
        key_value = linear(self.norm(hidden), self.key_value).to(dtype)
        return _turned(key_value.view(len(hidden), 2, -1, self.head_size)[:, 0], factors)


def _turned(heads: Tensor, factors: Factors) -> Tensor:
    return rotary(heads, *factors) if factors else heads
