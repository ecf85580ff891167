"""Random inputs of rotary position embedding, for its test."""

import torch
from torch import Tensor


def make_inputs(
    num_rows: int,
    num_heads: int,
    head_size: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x [T, H, C] and the cosine and sine [T, C] of random positions."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, num_heads, head_size, generator=generator)
    positions = torch.randint(0, 4096, (num_rows, 1), generator=generator)
    frequencies = 10_000.0 ** -(torch.arange(0, head_size, 2) / head_size)
    angles = (positions * frequencies).repeat(1, 2)
    return x.to(dtype), angles.cos().to(dtype), angles.sin().to(dtype)
