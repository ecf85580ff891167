"""Random inputs of the gated activation, for its test."""

import torch
from torch import Tensor


def make_inputs(
    num_rows: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Tensor:
    """Return gate and up as halves, [T, 2 F]."""
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(num_rows, 2 * width, generator=generator)).to(dtype)
