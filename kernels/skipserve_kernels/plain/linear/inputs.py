"""Random inputs of a linear layer, for its test."""

import torch
from torch import Tensor


def make_inputs(
    num_rows: int,
    num_outputs: int,
    num_inputs: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x [T, N], weight [M, N], bias [M] and residual [T, M]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, num_inputs, generator=generator)
    weight = torch.randn(num_outputs, num_inputs, generator=generator) * num_inputs**-0.5
    bias = torch.randn(num_outputs, generator=generator)
    residual = torch.randn(num_rows, num_outputs, generator=generator)
    return x.to(dtype), weight.to(dtype), bias.to(dtype), residual.to(dtype)
