"""Linear layers over packed weights: the public functions."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from skipserve_kernels.plain.linear import cpu


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A weight in the layout of the device that it lives on.

    Attributes:
        weight: [M, N] with any strides, or an opaque tensor in the layout of the CPU library.
        bias: [M], or None.
        is_prepacked: whether the weight is opaque.
    """

    weight: Tensor
    bias: Tensor | None
    is_prepacked: bool


def pack(weight: Tensor, bias: Tensor | None = None) -> PackedLinear:
    """Bring a weight [M, N] into the layout that `linear` reads fastest; the original can go."""
    if weight.device.type == "cpu" and cpu.gains_from_packing(weight):
        return PackedLinear(cpu.pack(weight), bias, is_prepacked=True)
    if weight.device.type == "cpu" and cpu.gains_from_columns(weight):
        weight = weight.t().contiguous().t()
    return PackedLinear(weight, bias, is_prepacked=False)


def linear(x: Tensor, packed: PackedLinear) -> Tensor:
    """Return x @ weight.T + bias: [..., N] to [..., M]."""
    if packed.is_prepacked:
        return cpu.linear(x, packed.weight, packed.bias)
    return F.linear(x, packed.weight, packed.bias)


def linear_add(x: Tensor, packed: PackedLinear, residual: Tensor) -> Tensor:
    """Return residual + x @ weight.T + bias; `residual` is [..., M] and stays as it is."""
    if packed.is_prepacked:
        return cpu.linear_add(x, packed.weight, packed.bias, residual)
    return F.linear(x, packed.weight, packed.bias).add_(residual)
