"""The meaning of the input projection, in float32, from layers as HF keeps them."""

from typing import NamedTuple

import torch
from torch import Tensor

from skipserve_kernels.plain.linear import reference as linear_reference
from skipserve_kernels.plain.rotary import reference as rotary_reference
from skipserve_kernels.plain.swiglu import reference as swiglu_reference
from skipserve_kernels.projection import Projection


class Layers(NamedTuple):
    """The layers of a block that read its input, with rows in HF's order."""

    query: Projection
    key: Projection
    value: Projection
    gate: Projection
    up: Projection


class Result(NamedTuple):
    """What a block's input becomes.

    Attributes:
        query: [N, H C], in the order of packed heads.
        key: [N, K C], in the order of packed heads.
        value: [N, K C].
        activation: [N, F].
    """

    query: Tensor
    key: Tensor
    value: Tensor
    activation: Tensor


def input_projection(
    attention_input: Tensor,
    ffn_input: Tensor,
    layers: Layers,
    cosine: Tensor,
    sine: Tensor,
    positions: Tensor,
) -> Result:
    """Return queries and keys turned by their positions, values, and silu(gate) * up.

    Args:
        attention_input: [N, D].
        ffn_input: [N, D].
        layers: of the block.
        cosine: of each position, [P, C].
        sine: of each position, [P, C].
        positions: [N]; a row at -1 has zeros for query and key.
    """
    query, key = (
        _turned_heads(linear_reference.linear(attention_input, *layer), cosine, sine, positions)
        for layer in (layers.query, layers.key)
    )
    gate_up = [linear_reference.linear(ffn_input, *layer) for layer in (layers.gate, layers.up)]
    return Result(
        query=query,
        key=key,
        value=linear_reference.linear(attention_input, *layers.value),
        activation=swiglu_reference.swiglu(torch.cat(gate_up, dim=-1)),
    )


def _turned_heads(x: Tensor, cosine: Tensor, sine: Tensor, positions: Tensor) -> Tensor:
    """Turn heads [N, H C] and put the two numbers that were turned together side by side."""
    heads = x.view(len(x), -1, cosine.shape[1])
    turned = rotary_reference.rotary(heads, cosine[positions], sine[positions])
    turned[positions < 0] = 0
    halves = turned.view(*turned.shape[:2], 2, -1)
    return halves.transpose(-1, -2).flatten(1)
