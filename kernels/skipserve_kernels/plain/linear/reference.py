"""The meaning of a linear layer, in float32."""

import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias."""
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float())


def linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
    """Return residual + x @ weight.T + bias."""
    return residual.float() + linear(x, weight, bias)
