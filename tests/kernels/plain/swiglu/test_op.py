"""The gated activation."""

import pytest
import torch
import torch.nn.functional as F
from kernel_errors import assert_as_exact_as, assert_near_reference

from skipserve_kernels.plain.swiglu import reference
from skipserve_kernels.plain.swiglu.inputs import make_inputs
from skipserve_kernels.plain.swiglu.op import swiglu

pytestmark = pytest.mark.fast

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [(1, 1), (1, 352), (3, 7), (33, 65), (5, 2816)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_gate_weighs_the_up_projection(sizes: tuple[int, int], dtype: torch.dtype) -> None:
    gate_up = make_inputs(*sizes, dtype=dtype)
    gate, up = gate_up.double().chunk(2, dim=-1)
    exact = gate * torch.sigmoid(gate) * up
    plain_gate, plain_up = gate_up.chunk(2, dim=-1)
    before = gate_up.clone()
    assert_near_reference(reference.swiglu(gate_up), exact)
    assert_as_exact_as(swiglu(gate_up), F.silu(plain_gate) * plain_up, exact)
    assert torch.equal(gate_up, before)
