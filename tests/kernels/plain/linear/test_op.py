"""Linear layers, packed as the CPU likes them and as they are."""

import pytest
import torch
import torch.nn.functional as F
from kernel_errors import assert_as_exact_as, assert_near_reference

from skipserve_kernels.plain.linear import cpu, reference
from skipserve_kernels.plain.linear.inputs import make_inputs
from skipserve_kernels.plain.linear.op import PackedLinear, linear, linear_add, pack

pytestmark = pytest.mark.fast

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [(1, 1, 1), (1, 384, 128), (3, 5, 7), (17, 33, 65), (5, 768, 1024), (2, 704, 512)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_are_exact(
    sizes: tuple[int, int, int], has_bias: bool, dtype: torch.dtype
) -> None:
    x, weight, bias, residual = make_inputs(*sizes, dtype=dtype)
    used_bias = bias if has_bias else None
    wide_bias = bias.double() if has_bias else None
    exact = F.linear(x.double(), weight.double(), wide_bias)
    packed = pack(weight, used_bias)
    plain = F.linear(x, weight, used_bias)
    assert_near_reference(reference.linear(x, weight, used_bias), exact)
    assert_as_exact_as(linear(x, packed), plain, exact)
    with_residual = residual.double() + exact
    assert_near_reference(reference.linear_add(x, weight, used_bias, residual), with_residual)
    before = residual.clone()
    assert_as_exact_as(linear_add(x, packed, residual), residual + plain, with_residual)
    assert torch.equal(residual, before)


def test_inputs_may_have_more_dimensions_and_strides() -> None:
    x, weight, bias, _ = make_inputs(6, 512, 513, dtype=torch.float32)
    packed = pack(weight[:, 1:], bias)
    assert isinstance(packed, PackedLinear)
    assert packed.is_prepacked
    strided = x.view(2, 3, 513)[:, :, 1:]
    expected = F.linear(strided, weight[:, 1:], bias)
    assert torch.allclose(linear(strided, packed), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_row_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    """Batch invariance, to rounding: bitwise equality is not promised on the CPU."""
    x, weight, _, residual = make_inputs(40, 600, 512, dtype=dtype)
    packed = pack(weight)
    together = linear_add(x, packed, residual)
    tolerance = 4 * torch.finfo(dtype).eps * together.abs().max()
    for size in (1, 2, 3, 4, 7, 16):
        alone = linear_add(x[:size], packed, residual[:size])
        assert (alone - together[:size]).abs().max() <= tolerance


def test_weights_are_reordered_where_that_gains() -> None:
    small, large = torch.ones(64, 64), torch.ones(512, 512)
    assert not cpu.gains_from_packing(small)
    assert cpu.gains_from_packing(large)
    assert cpu.gains_from_packing(small.bfloat16())


def test_small_weights_lie_column_by_column() -> None:
    packed = pack(torch.arange(6.0).view(2, 3))
    assert packed.weight.stride() == (1, 2)
    assert torch.equal(linear(torch.eye(3), packed), torch.arange(6.0).view(2, 3).t())


def test_without_the_librarys_private_operators_weights_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(_weight: torch.Tensor) -> torch.Tensor:
        raise AttributeError("no such operator")

    cpu._can_pack.cache_clear()
    monkeypatch.setattr(cpu, "pack", missing)
    weight = torch.ones(512, 512)
    packed = pack(weight)
    cpu._can_pack.cache_clear()
    assert packed == PackedLinear(weight, None, is_prepacked=False)
    assert torch.equal(linear_add(weight[:1], packed, weight[:1]), torch.full((1, 512), 513.0))


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3])
def test_few_rows_come_back_as_few(num_rows: int) -> None:
    x, weight, bias, residual = make_inputs(num_rows, 512, 600)
    packed = pack(weight, bias)
    assert isinstance(packed, PackedLinear)
    assert packed.is_prepacked
    expected = F.linear(x, weight, bias)
    assert torch.allclose(linear(x, packed), expected, atol=1e-4)
    assert torch.allclose(linear_add(x, packed, residual), residual + expected, atol=1e-4)
