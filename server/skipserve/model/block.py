"""One layer of a LLaMA decoder, for rows that do different things. Knows no policy.

Shapes: T rows, D hidden, H query heads, K key/value heads, C head size, F FFN size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from skipserve.model.batch import Every, LayerRows, put, take
from skipserve.model.block_rows import BlockRows
from skipserve.model.config import ModelConfig
from skipserve.model.weights import Weights, take_gain, take_linear
from skipserve_kernels.attention.op import KeyValues, attention, store
from skipserve_kernels.linear.op import PackedLinear, linear, linear_add
from skipserve_kernels.rms_norm.op import Gain, rms_norm
from skipserve_kernels.rotary.op import rotary
from skipserve_kernels.swiglu.op import swiglu


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
    def load(cls, config: ModelConfig, weights: Weights, layer: int) -> Self:
        """Read one layer."""
        sizes = config.sizes.decoder
        hidden, ffn = sizes.hidden_size, sizes.ffn_size
        d_q, d_kv = sizes.num_heads * sizes.head_dim, sizes.num_kv_heads * sizes.head_dim
        epsilon = config.rms_norm_epsilon
        name = f"decoder.layers.{layer}"
        attention_name, ffn_name = f"{name}.self_attn", f"{name}.mlp"
        attention_bias = bool(config.text.get("attention_bias"))
        ffn_bias = bool(config.text.get("mlp_bias"))
        key_value = {f"{attention_name}.k_proj": d_kv, f"{attention_name}.v_proj": d_kv}
        gate_up = {f"{ffn_name}.gate_proj": ffn, f"{ffn_name}.up_proj": ffn}

        def read(parts: Mapping[str, int], num_inputs: int, has_bias: bool) -> PackedLinear:
            return take_linear(weights, parts, num_inputs, has_bias=has_bias)

        return cls(
            attention_norm=take_gain(weights, f"{name}.input_layernorm", hidden, epsilon),
            query=read({f"{attention_name}.q_proj": d_q}, hidden, attention_bias),
            key_value=read(key_value, hidden, attention_bias),
            output=read({f"{attention_name}.o_proj": hidden}, d_q, attention_bias),
            ffn_norm=take_gain(weights, f"{name}.post_attention_layernorm", hidden, epsilon),
            gate_up=read(gate_up, hidden, ffn_bias),
            down=read({f"{ffn_name}.down_proj": hidden}, ffn, ffn_bias),
            head_size=sizes.head_dim,
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
