"""Random inputs of the input projection, for its test."""

from dataclasses import dataclass

import torch
from torch import Tensor

from skipserve_kernels.fused.input_projection.reference import Layers
from skipserve_kernels.projection import Projection

NUM_POSITIONS = 50


@dataclass(frozen=True, slots=True)
class Sizes:
    """The shape of a block: D, H, K, C and F."""

    hidden: int
    heads: int
    kv_heads: int
    head: int
    ffn: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the input projection reads.

    Attributes:
        attention_input: [N, D].
        ffn_input: [N, D].
        layers: of the block.
        cosine: [P, C], both halves alike.
        sine: [P, C], both halves alike.
        positions: of all T rows, [T] int64.
        slots: of all T rows, [T] int64, distinct and out of order, among T + 3.
        index: of T rows, the N that are chosen, [N] int64, out of order.
    """

    attention_input: Tensor
    ffn_input: Tensor
    layers: Layers
    cosine: Tensor
    sine: Tensor
    positions: Tensor
    slots: Tensor
    index: Tensor


def make_inputs(
    num_rows: int,
    sizes: Sizes,
    *,
    has_bias: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Inputs:
    """Return inputs for N rows out of T = N + 5; of all layers, only `up` never has a bias."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator, device=device) * scale).to(dtype)

    def layer(num_outputs: int, *, is_biased: bool) -> Projection:
        weight = random(num_outputs, sizes.hidden, scale=sizes.hidden**-0.5)
        return Projection(weight, random(num_outputs) if is_biased else None)

    total = num_rows + 5
    frequencies = 100.0 ** -(torch.arange(0, sizes.head, 2, device=device) / sizes.head)
    angles = (torch.arange(NUM_POSITIONS, device=device)[:, None] * frequencies).repeat(1, 2)
    query, key, value = (
        layer(heads * sizes.head, is_biased=has_bias)
        for heads in (sizes.heads, sizes.kv_heads, sizes.kv_heads)
    )
    gate, up = layer(sizes.ffn, is_biased=has_bias), layer(sizes.ffn, is_biased=False)
    return Inputs(
        attention_input=random(num_rows, sizes.hidden),
        ffn_input=random(num_rows, sizes.hidden),
        layers=Layers(query, key, value, gate, up),
        cosine=angles.cos(),
        sine=angles.sin(),
        positions=torch.randint(NUM_POSITIONS, (total,), generator=generator, device=device),
        slots=torch.randperm(total + 3, generator=generator, device=device)[:total],
        index=torch.randperm(total, generator=generator, device=device)[:num_rows],
    )
