"""Random inputs of the output projection, for its test."""

from dataclasses import dataclass

import torch
from torch import Tensor

from skipserve_kernels.fused.output_projection.packing import OutputWeights, pack_outputs
from skipserve_kernels.projection import Projection


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a block's output side works on.

    Attributes:
        x: [attention | activation], [N, QN + F].
        weights: with biases.
        hidden: the residual stream, [T, D].
    """

    x: Tensor
    weights: OutputWeights
    hidden: Tensor


def make_inputs(
    num_rows: int,
    hidden_size: int,
    query_size: int,
    ffn_size: int,
    *,
    num_hidden_rows: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Inputs:
    """Return inputs for N entries of a residual stream with T rows, N unless given."""
    generator = torch.Generator(device).manual_seed(0)

    def randn(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator, device=device) * scale).to(dtype)

    def linear(width: int) -> Projection:
        return Projection(randn(hidden_size, width, scale=width**-0.5), randn(hidden_size))

    return Inputs(
        x=randn(num_rows, query_size + ffn_size),
        weights=pack_outputs(
            linear(query_size),
            linear(ffn_size),
        ),
        hidden=randn(num_hidden_rows or num_rows, hidden_size),
    )
