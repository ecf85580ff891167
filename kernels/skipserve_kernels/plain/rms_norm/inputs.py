"""Random inputs of the normalisation, for its test."""

import torch
from torch import Tensor


def make_inputs(
    num_rows: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return x [T, D] with rows of very different sizes, and gain [D]."""
    generator = torch.Generator(device).manual_seed(0)
    sizes = torch.logspace(-2, 2, num_rows, device=device)[:, None]
    x = torch.randn(num_rows, width, generator=generator, device=device) * sizes
    gain = 1 + 0.1 * torch.randn(width, generator=generator, device=device)
    return x.to(dtype), gain.to(dtype)
