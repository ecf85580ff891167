"""Rotary position embedding: the public functions."""

import torch
from torch import Tensor


def rotary_table(cosine: Tensor, sine: Tensor) -> Tensor:
    """Pack the factors of positions, [P, C] each, into one table [P, 2, 1, C].

    Both halves of a row of `cosine` are alike, and of `sine`. The sine of the first half is
    stored negated, so that turning a head is one roll by half its size and two products.
    """
    half = sine.shape[-1] // 2
    signed = torch.cat((-sine[:, :half], sine[:, half:]), dim=-1)
    return torch.stack((cosine, signed), dim=1).unsqueeze(2)


def rotary(x: Tensor, cosine: Tensor, signed_sine: Tensor) -> Tensor:
    """Turn heads [T, H, C] by their row's position.

    Args:
        x: queries or keys.
        cosine: [T, 1, C], the first of the two factors in a `rotary_table`.
        signed_sine: [T, 1, C], the second of them.
    """
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, -1), signed_sine)
