"""Linear layers on the CPU: weights that oneDNN has reordered, where that gains.

A reordered weight reads a bf16 row about twice as fast as `F.linear` does, and many float32 rows
too. The operators are torch's own, but under a private name, so whether they work is asked first.
"""

from functools import cache
from typing import cast

import torch
from torch import Tensor

# A call of oneDNN costs about 10 us more than one of MKL: float32 weights that are smaller stay.
_LEAST_REORDERED_FLOAT32 = 512 * 512


def gains_from_packing(weight: Tensor) -> bool:
    """Return whether a weight [M, N] is worth reordering, and can be."""
    return not gains_from_columns(weight) and _can_pack(weight.dtype)


def gains_from_columns(weight: Tensor) -> bool:
    """Return whether MKL reads a weight [M, N] faster column by column.

    704 outputs of 128 inputs take one row 25 us instead of 39, and 16 rows 67 us instead of 84.
    """
    return weight.dtype is torch.float32 and weight.numel() < _LEAST_REORDERED_FLOAT32


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Return whether this torch on this CPU multiplies with reordered weights of a type."""
    try:
        weight = torch.ones(8, 8, dtype=dtype)
        product = linear_add(weight[:1], pack(weight), None, weight[:1])
    except (AttributeError, RuntimeError):
        return False
    return bool((product == 9).all())


def pack(weight: Tensor) -> Tensor:
    """Reorder a weight [M, N]; the result is opaque."""
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight.contiguous()))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x @ weight.T + bias."""
    operator = torch.ops.mkldnn._linear_pointwise.default
    return cast(Tensor, operator(_repeat(x), weight, bias, "none", [], ""))[: len(x)]


def linear_add(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
    """Return residual + x @ weight.T + bias, rounded once."""
    operator = torch.ops.mkldnn._linear_pointwise.binary
    product = operator(_repeat(x), _repeat(residual), weight, bias, "add")
    return cast(Tensor, product)[: len(x)]


def _repeat(x: Tensor) -> Tensor:
    """Make four rows of one or two, for oneDNN reads large weights slower for less than three.

    24 times 5632 outputs of 1024 inputs take one row 17.1 ms, two rows 20.5, and four 15.1.
    """
    return torch.cat((x,) * (4 // len(x))) if x.dim() == 2 and 0 < len(x) <= 2 else x
