"""Linear layers over packed weights: the public functions."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from skipserve_kernels.plain.linear import cpu, int8
from skipserve_kernels.plain.linear.int8 import Int8Linear


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


# A linear layer that is ready to run.
Linear = PackedLinear | Int8Linear


def pack(weight: Tensor, bias: Tensor | None = None, *, in_8_bits: bool = False) -> Linear:
    """Bring a weight [M, N] into the layout that `linear` reads fastest; the original can go.

    Args:
        weight: of any type of plain numbers.
        bias: [M], or None.
        in_8_bits: whether it is rounded to 8 bits, and its inputs are when it runs: on a CPU that
            can, as `int8.is_exact` says.
    """
    if in_8_bits:
        return int8.quantise(weight, bias)
    if weight.device.type == "cpu" and cpu.gains_from_packing(weight):
        return PackedLinear(cpu.pack(weight), bias, is_prepacked=True)
    if weight.device.type == "cpu" and cpu.gains_from_columns(weight):
        weight = weight.t().contiguous().t()
    return PackedLinear(weight, bias, is_prepacked=False)


def linear(x: Tensor, packed: Linear) -> Tensor:
    """Return x @ weight.T + bias: [..., N] to [..., M]."""
    if isinstance(packed, Int8Linear):
        return int8.linear(x, packed)
    if packed.is_prepacked:
        return cpu.linear(x, packed.weight, packed.bias)
    return F.linear(x, packed.weight, packed.bias)


def linear_add(x: Tensor, packed: Linear, residual: Tensor) -> Tensor:
    """Return residual + x @ weight.T + bias; `residual` is [..., M] and stays as it is."""
    if isinstance(packed, Int8Linear):
        return int8.linear_add(x, packed, residual)
    if packed.is_prepacked:
        return cpu.linear_add(x, packed.weight, packed.bias, residual)
    return F.linear(x, packed.weight, packed.bias).add_(residual)
