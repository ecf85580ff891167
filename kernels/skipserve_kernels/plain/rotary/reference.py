"""The meaning of rotary position embedding, in float32."""

import torch
from torch import Tensor


def rotary(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn x [T, H, C] by the factors [T, C]: element i is paired with element i + C / 2."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x.float() * cosine.float()[:, None] + turned * sine.float()[:, None]
