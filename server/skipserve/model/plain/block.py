"""One layer of a LLaMA decoder, for rows that do different things. Knows no policy.

Shapes: T rows, D hidden, H query heads, K key/value heads, C head size, F FFN size.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skipserve.model.block_weights import BlockWeights
from skipserve.model.plain.rows import BlockRows
from skipserve.model.work import Every, LayerRows, put, take
from skipserve_kernels.key_values import KeyValues
from skipserve_kernels.plain.attention.op import attention, store
from skipserve_kernels.plain.linear.op import PackedLinear, linear, linear_add, pack
from skipserve_kernels.plain.rms_norm.op import Gain, pack_gain, rms_norm
from skipserve_kernels.plain.rotary.op import rotary
from skipserve_kernels.plain.swiglu.op import swiglu
from skipserve_kernels.projection import Projection


@dataclass(frozen=True)
class DecoderBlock:
    """One layer: its weights and what to do with them."""

    attention_norm: Gain
    query: PackedLinear
    key_value: PackedLinear
    output: PackedLinear
    ffn_norm: Gain
    gate_up: PackedLinear
    down: PackedLinear
    head_size: int

    @classmethod
    def pack(cls, plain: BlockWeights) -> Self:
        """Bring the weights of one layer into the layout that is read fastest."""
        return cls(
            attention_norm=pack_gain(plain.attention_gain, plain.epsilon),
            query=_pack(plain.query),
            key_value=_pack(plain.key, plain.value),
            output=_pack(plain.output),
            ffn_norm=pack_gain(plain.ffn_gain, plain.epsilon),
            gate_up=_pack(plain.gate, plain.up),
            down=_pack(plain.down),
            head_size=plain.head_size,
        )

    def __call__(self, hidden: Tensor, block: BlockRows, cache: KeyValues) -> Tensor:
        """Run the block on its rows; the others pass unchanged.

        Args:
            hidden: the block's input, [T, D].
            block: which rows do what.
            cache: keys and values of this layer; those of the batch are written into it.

        Returns:
            [T, D].
        """
        rows = block.rows
        attended = hidden
        if rows.kv is not Every.NONE:
            attended = self._attend(hidden, block, cache)
        if rows.ffn is Every.NONE:
            return attended
        inner = swiglu(linear(self._ffn_input(hidden, attended, rows), self.gate_up))
        return put(attended, rows.ffn, linear_add(inner, self.down, take(attended, rows.ffn)))

    def _attend(self, hidden: Tensor, block: BlockRows, cache: KeyValues) -> Tensor:
        """Store keys and values; return the block's input with the attention added to it."""
        rows = block.rows
        normed = rms_norm(take(hidden, rows.kv), self.attention_norm)
        num_kv_heads, dtype = cache.keys.shape[1], cache.keys.dtype
        key_value = linear(normed, self.key_value).to(dtype)
        key, value = key_value.view(-1, 2, num_kv_heads, self.head_size).unbind(1)
        key = rotary(key, *block.key_factors)
        store(cache, block.slots, key, value)
        if block.layout is None:
            return hidden
        if rows.attention is not rows.kv:
            normed = rms_norm(take(hidden, rows.attention), self.attention_norm)
        query = linear(normed, self.query).to(dtype).view(len(normed), -1, self.head_size)
        mixed = attention(rotary(query, *block.query_factors), (key, value), cache, block.layout)
        residual = take(hidden, rows.attention)
        return put(
            hidden, rows.attention, linear_add(mixed.to(hidden.dtype), self.output, residual)
        )

    def _ffn_input(self, hidden: Tensor, attended: Tensor, rows: LayerRows) -> Tensor:
        """Return what the FFN's rows feed it, normalised."""
        if rows.parallel_shared is Every.ALL:
            return rms_norm(take(hidden, rows.ffn), self.attention_norm)
        if rows.parallel is not Every.NONE:
            attended = put(attended, rows.parallel, take(hidden, rows.parallel))
        if rows.parallel_shared is Every.NONE:
            return rms_norm(take(attended, rows.ffn), self.ffn_norm)
        shared = rms_norm(take(hidden, rows.parallel_shared), self.attention_norm)
        own = rms_norm(attended, self.ffn_norm)
        return take(put(own, rows.parallel_shared, shared), rows.ffn)


def _pack(*layers: Projection) -> PackedLinear:
    """Pack linear layers of one input as one, whose outputs follow each other."""
    weight = torch.cat([layer.weight for layer in layers])
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return pack(weight, torch.cat(biases) if biases else None)
