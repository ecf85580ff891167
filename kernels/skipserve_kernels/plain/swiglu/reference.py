"""The meaning of the gated activation, in float32."""

import torch
from torch import Tensor


def swiglu(gate_up: Tensor) -> Tensor:
    """Return gate * sigmoid(gate) * up."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up
