"""Argmax and sort of rows, on the CPU as elsewhere."""

import math

import pytest
import torch

from skipserve.engine.largest import argmax, ascending

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("num_tokens", [1, 7, 448, 5000])
def test_as_torch_has_it(num_tokens: int) -> None:
    x = torch.randn(5, num_tokens, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    assert argmax(x).equal(x.argmax(dim=-1))
    assert argmax(x).dtype == torch.int64
    for count in {1, num_tokens // 2 + 1, num_tokens}:
        wanted = x.sort(dim=-1).values[:, num_tokens - count :]
        assert ascending(x, count).equal(wanted)


def test_the_argument_stays_as_it_is() -> None:
    x = torch.tensor([[3.0, 1.0, 2.0]])
    ascending(x, 3)[0, 0] = 9.0
    assert x.tolist() == [[3.0, 1.0, 2.0]]


def test_the_first_of_equals_and_not_a_number() -> None:
    x = torch.tensor([[1.0, 4.0, 4.0], [1.0, 9.0, math.nan]])
    assert argmax(x).tolist() == [1, 2]
    for row in (ascending(x, 3)[1], ascending(x, 2)[1]):
        assert row[-1].isnan()
        assert row[-2] == 9.0
