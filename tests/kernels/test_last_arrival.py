"""How the last of several programs learns that it is the last."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton_interpreter import shuffled

from skipserve_kernels.last_arrival import arrives_last

pytestmark = [pytest.mark.kernels, pytest.mark.fast]


def _kernel(function: Callable[..., Any]) -> Any:
    """Decorate a kernel; Triton's own decorator has no types."""
    return triton.jit(function)


@_kernel
def _count(parts: Any, sums: Any, arrivals: Any, NUM: tl.constexpr) -> None:
    """Add up what the programs of each place have stored; each last one adds once."""
    place, part = tl.program_id(0), tl.program_id(1)
    tl.store(parts + place * NUM + part, 10 * place + part + 1)
    if arrives_last(arrivals, place, NUM):
        total = tl.load(sums + place)
        for other in tl.static_range(NUM):
            total += tl.load(parts + place * NUM + other)
        tl.store(sums + place, total)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_one_program_finds_all_parts(num: int) -> None:
    arrivals = torch.zeros(3, dtype=torch.int32)
    for seed in range(3):
        parts, sums = torch.zeros(3 * num, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
        with shuffled(seed):
            _count[(3, num)](parts, sums, arrivals, num)
        first = num * (num + 1) // 2
        assert sums.tolist() == [first, first + 10 * num, first + 20 * num]
        assert not arrivals.any()
