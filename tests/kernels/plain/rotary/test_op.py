"""Rotary position embedding."""

import pytest
import torch
from kernel_errors import assert_as_exact_as, assert_near_reference
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from skipserve_kernels.plain.rotary import reference
from skipserve_kernels.plain.rotary.inputs import make_inputs
from skipserve_kernels.plain.rotary.op import rotary, rotary_table

pytestmark = pytest.mark.fast

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [(1, 1, 2), (1, 4, 32), (3, 5, 6), (17, 16, 64), (33, 2, 128)]


def turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    return rotary(x, *rotary_table(cosine, sine).unbind(1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_heads_are_turned(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    x, cosine, sine = make_inputs(*sizes, dtype=dtype)
    wide, wide_cosine, wide_sine = x.double(), cosine.double()[:, None], sine.double()[:, None]
    first, second = wide.chunk(2, dim=-1)
    exact = wide * wide_cosine + torch.cat((-second, first), dim=-1) * wide_sine
    plain, _ = apply_rotary_pos_emb(x, x, cosine, sine, unsqueeze_dim=1)
    assert_near_reference(reference.rotary(x, cosine, sine), exact)
    assert_as_exact_as(turn(x, cosine, sine), plain, exact)


def test_a_head_may_be_a_strided_part_of_a_product() -> None:
    x, cosine, sine = make_inputs(5, 4, 8)
    product = torch.cat((x, x), dim=1).view(5, 2, 4, 8)
    assert torch.equal(turn(product[:, 1], cosine, sine), turn(x, cosine, sine))


def test_turning_keeps_the_length() -> None:
    x, cosine, sine = make_inputs(7, 3, 16)
    assert torch.allclose(turn(x, cosine, sine).norm(dim=-1), x.norm(dim=-1), rtol=1e-5)
