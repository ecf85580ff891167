"""How exact a kernel must be: judged by the error of plain torch against float64."""

import torch
from torch import Tensor


def assert_as_exact_as(actual: Tensor, plain: Tensor, exact: Tensor) -> None:
    """Check that a result's error is at most twice plain torch's plus two roundings.

    Args:
        actual: what the kernel gave.
        plain: what plain torch gives in the same type.
        exact: the result in float64.
    """
    assert actual.dtype is plain.dtype
    assert actual.shape == exact.shape
    assert not actual.isnan().any()
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max()
    allowed = 2 * (plain.double() - exact).abs().max() + 2 * rounding
    assert (actual.double() - exact).abs().max() <= allowed


def assert_near_reference(reference: Tensor, exact: Tensor) -> None:
    """Check that the float32 reference means what the float64 formula does."""
    assert reference.dtype is torch.float32
    assert (reference.double() - exact).abs().max() <= 1e-5 * exact.abs().max()
