"""Root mean square normalisation."""

import pytest
import torch
from kernel_errors import assert_as_exact_as, assert_near_reference

from skipserve_kernels.plain.rms_norm import reference
from skipserve_kernels.plain.rms_norm.inputs import make_inputs
from skipserve_kernels.plain.rms_norm.op import pack_gain, rms_norm

pytestmark = pytest.mark.fast

EPSILON = 1e-5
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [(1, 1), (1, 128), (3, 7), (33, 65), (5, 1024), (2, 4096)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_rows_are_normalised(sizes: tuple[int, int], dtype: torch.dtype) -> None:
    x, gain = make_inputs(*sizes, dtype=dtype)
    wide = x.double()
    length = (wide.square().mean(-1, keepdim=True) + EPSILON).sqrt()
    exact = wide / length * gain.double()
    plain = torch.rms_norm(x, (sizes[1],), gain, EPSILON)
    assert_near_reference(reference.rms_norm(x, gain, EPSILON), exact)
    before = x.clone()
    assert_as_exact_as(rms_norm(x, pack_gain(gain, EPSILON)), plain, exact)
    assert torch.equal(x, before)


def test_a_row_of_zeros_stays_zero() -> None:
    gain = pack_gain(torch.ones(8), EPSILON)
    assert torch.equal(rms_norm(torch.zeros(2, 8), gain), torch.zeros(2, 8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    x, gain = make_inputs(9, 320, dtype=dtype)
    packed = pack_gain(gain, EPSILON)
    assert torch.equal(rms_norm(x, packed)[4:5], rms_norm(x[4:5], packed))
