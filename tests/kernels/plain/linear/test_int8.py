"""Linear layers in 8 bits, against the scheme in float64, and bit by bit in any batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve_kernels.plain.linear import int8
from skipserve_kernels.plain.linear.inputs import make_inputs
from skipserve_kernels.plain.linear.op import linear, linear_add, pack

pytestmark = [
    pytest.mark.fast,
    pytest.mark.skipif(not int8.is_exact(), reason="this CPU adds products of 8 bits with loss"),
]

DTYPES = [torch.float32, torch.bfloat16]
SIZES = [(1, 1, 1), (1, 384, 128), (3, 5, 7), (17, 33, 65), (64, 768, 1024)]


def _by_scheme(x: Tensor, weight: Tensor) -> Tensor:
    """Return the product of rounded rows and weights, in float64."""
    wide, rows = weight.double(), x.double()
    unit = wide.abs().amax(1, keepdim=True) / 127
    scale = (x.abs().amax(1, keepdim=True).float() / 127).to(x.dtype).double()
    return ((rows / scale).round() * scale) @ ((wide / unit).round() * unit).T


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_are_those_of_the_scheme(
    sizes: tuple[int, int, int], has_bias: bool, dtype: torch.dtype
) -> None:
    x, weight, bias, residual = make_inputs(*sizes, dtype=dtype)
    packed = pack(weight, bias if has_bias else None, in_8_bits=True)
    expected = _by_scheme(x, weight) + (bias.double() if has_bias else 0)
    # A half that falls the other way in float32 is a unit of one input.
    unit = x.abs().amax().double() / 127 * weight.abs().amax().double()
    bound = 4 * torch.finfo(dtype).eps * expected.abs().max() + 2 * unit

    assert (linear(x, packed).double() - expected).abs().max() <= bound
    added = linear_add(x, packed, residual)
    scale = (expected + residual.double()).abs().max()
    assert (added.double() - expected - residual.double()).abs().max() <= bound + 4 * torch.finfo(
        dtype
    ).eps * scale
    assert added.dtype is dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_error_is_a_hundredth(dtype: torch.dtype) -> None:
    x, weight, _, _ = make_inputs(64, 512, 1024, dtype=dtype)
    exact = F.linear(x.double(), weight.double())

    found = linear(x, pack(weight, in_8_bits=True)).double()

    # Uniform rounding of 127 steps at a largest of some 3.3 deviations, on both sides.
    assert 0.005 < (found - exact).norm() / exact.norm() < 0.015


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_is_the_same_bit_by_bit_in_any_batch(dtype: torch.dtype) -> None:
    x, weight, bias, residual = make_inputs(70, 600, 512, dtype=dtype)
    packed = pack(weight, bias, in_8_bits=True)
    together, added = linear(x, packed), linear_add(x, packed, residual)

    for size in (1, 2, 3, 8, 33, 64):
        assert torch.equal(linear(x[:size], packed), together[:size])
        assert torch.equal(linear_add(x[:size], packed, residual[:size]), added[:size])


def test_inputs_may_have_more_dimensions_and_strides() -> None:
    x, weight, bias, _ = make_inputs(6, 96, 65)
    packed = pack(weight[:, 1:], bias, in_8_bits=True)
    strided = x.view(2, 3, 65)[:, :, 1:]

    assert torch.equal(linear(strided, packed), linear(x[:, 1:], packed).view(2, 3, 96))


def test_no_rows_and_rows_of_zeros_come_back_as_they_are() -> None:
    x, weight, bias, _ = make_inputs(4, 96, 64)
    packed = pack(weight, bias, in_8_bits=True)

    assert linear(x[:0], packed).shape == (0, 96)
    assert torch.equal(linear(torch.zeros(2, 64), packed), bias.expand(2, -1))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_made_one(wrong: float) -> None:
    x, weight, _, _ = make_inputs(3, 96, 64)
    x[1, 5] = wrong

    found = linear(x, pack(weight, in_8_bits=True))

    assert not torch.isfinite(found[1]).any()
    assert torch.isfinite(found[[0, 2]]).all()


def test_a_cpu_that_saturates_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturating(rows: Tensor, packed: int8.Int8Linear, dtype: torch.dtype) -> Tensor:
        return torch.full((len(rows), len(packed.scales)), 32767.0 * 32, dtype=dtype)

    int8.is_exact.cache_clear()
    monkeypatch.setattr(int8, "_multiply", saturating)
    found = int8.is_exact()
    int8.is_exact.cache_clear()

    assert not found
