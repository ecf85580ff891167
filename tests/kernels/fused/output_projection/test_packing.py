"""The weights of a block's output side, joined and apart."""

import pytest
import torch

from skipserve_kernels.fused.output_projection.packing import pack_outputs
from skipserve_kernels.projection import Projection

pytestmark = pytest.mark.fast


def test_slices_are_the_weights_and_share_their_memory() -> None:
    output, down = torch.randn(8, 16), torch.randn(8, 24)
    weights = pack_outputs(Projection(output), Projection(down))
    assert torch.equal(weights.output[0], output)
    assert torch.equal(weights.down[0], down)
    assert torch.equal(weights.all[0], torch.cat((output, down), dim=1))
    assert weights.output[1] is weights.down[1] is weights.all[1] is None
    storage = weights.weight.untyped_storage().data_ptr()
    for part, _ in (weights.output, weights.down):
        assert part.untyped_storage().data_ptr() == storage


def test_one_product_gives_the_sum_of_both() -> None:
    x, y = torch.randn(3, 16), torch.randn(3, 24)
    output, down = (Projection(torch.randn(8, n), torch.randn(8)) for n in (16, 24))
    weight, bias = pack_outputs(output, down).all
    together = torch.nn.functional.linear(torch.cat((x, y), dim=1), weight, bias)
    apart = torch.nn.functional.linear(x, *output) + torch.nn.functional.linear(y, *down)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("which", [0, 1])
def test_one_bias_alone_is_that_of_both(which: int) -> None:
    bias, weight = torch.randn(8), torch.randn(8, 16)
    weights = pack_outputs(*(Projection(weight, bias if i == which else None) for i in range(2)))
    found = weights.all[1]
    assert found is not None
    assert torch.equal(found, bias)
    assert (weights.output[1] is None) == (which == 1)
    assert (weights.down[1] is None) == (which == 0)


def test_the_sum_of_biases_is_rounded_once() -> None:
    biases = torch.tensor([[1.0, 256.0], [2.0**-9, 1.0]]).bfloat16()
    weight = torch.zeros(2, 4, dtype=torch.bfloat16)
    found = pack_outputs(*(Projection(weight, bias) for bias in biases)).all.bias
    assert found is not None
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, (biases[0].double() + biases[1].double()).bfloat16())
