"""Linear layers on the CPU in 8 bits: signed weights by output, unsigned inputs by row.

A row's own largest magnitude is its scale, so that it does not hang on the rows beside it, and the
sums are exact integers: a product's bits are the same in any batch. Source of the scheme: dynamic
per-token activations with per-channel weights, as in LLM.int8() (arXiv 2208.07339), without its
outliers.
"""

from dataclasses import dataclass
from functools import cache
from typing import cast

import torch
from torch import Tensor

# The inputs are shifted by it, so that they have no sign: signed ones run in a reference kernel of
# oneDNN's, some hundred times slower.
_SHIFT = 128
_LARGEST = 127


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """A weight of 8 bits.

    Attributes:
        weight: opaque, of [M, N].
        scales: what a unit of each output's weights is worth, [M] float32.
        bias: [M], or None.
    """

    weight: Tensor
    scales: Tensor
    bias: Tensor | None


def quantise(weight: Tensor, bias: Tensor | None = None) -> Int8Linear:
    """Round a weight [M, N] to 8 bits, each output by its own largest magnitude."""
    wide = weight.float()
    scales = wide.abs().amax(dim=1).clamp_(min=torch.finfo(torch.float32).tiny) / _LARGEST
    rounded = (wide / scales[:, None]).round_().to(torch.int8)
    return Int8Linear(_reorder(rounded), scales, bias)


def linear(x: Tensor, packed: Int8Linear) -> Tensor:
    """Return x @ weight.T + bias: [..., N] to [..., M]."""
    product, scale = _product(x, packed)
    if packed.bias is None:
        return product.mul_(scale)
    return torch.addcmul(packed.bias, product, scale)


def linear_add(x: Tensor, packed: Int8Linear, residual: Tensor) -> Tensor:
    """Return residual + x @ weight.T + bias; `residual` is [..., M] and stays as it is."""
    product, scale = _product(x, packed)
    added = torch.addcmul(residual, product, scale)
    return added if packed.bias is None else added.add_(packed.bias)


@cache
def is_exact() -> bool:
    """Return whether this torch on this CPU adds products of 8 bits without loss.

    Without VNNI, pairs of products are added in 16 bits, which saturate.
    """
    try:
        weight = torch.full((16, 64), _LARGEST, dtype=torch.int8)
        scales = torch.ones(16)
        full = torch.full((2, 64), 255, dtype=torch.uint8)
        found = _multiply(full, Int8Linear(_reorder(weight), scales, None), torch.float32)
    except (AttributeError, RuntimeError):
        return False
    return bool((found == 64 * (255 - _SHIFT) * _LARGEST).all())


def _product(x: Tensor, packed: Int8Linear) -> tuple[Tensor, Tensor]:
    """Return a product [..., M] in units of each row's scale, and the scales, [..., 1]."""
    flat = x.reshape(-1, x.shape[-1])
    rows, scale = _quantise_rows(flat)
    product = _multiply(rows, packed, x.dtype)
    return product.view(*x.shape[:-1], len(packed.scales)), scale.view(*x.shape[:-1], 1)


def _quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows [T, N] in 8 bits, and what a unit of each is worth, [T, 1] in their type.

    Rounding the scale to the rows' type leaves the largest below 127.5, which is all that fits.
    """
    largest = x.abs().amax(dim=-1, keepdim=True).float()
    scale = (largest / _LARGEST).clamp_(min=torch.finfo(torch.float32).tiny).to(x.dtype)
    # What is cut off behind a half is rounding, and no shifted value is below 0.
    return (x.float() / scale.float()).add_(_SHIFT + 0.5).to(torch.uint8), scale


def _multiply(rows: Tensor, packed: Int8Linear, dtype: torch.dtype) -> Tensor:
    operator = torch.ops.onednn.qlinear_pointwise.default
    no_shifts = torch.zeros(len(packed.scales), dtype=torch.int32)
    weight, scales = packed.weight, packed.scales
    given = (rows, 1.0, _SHIFT, weight, scales, no_shifts, None)
    return cast(Tensor, operator(*given, 1.0, 0, dtype, "none", [], ""))


def _reorder(weight: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.onednn.qlinear_prepack(weight, None))
