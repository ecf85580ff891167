"""Normalisation of chosen rows into several places."""

import pytest
import torch
from kernel_errors import assert_as_exact_as
from torch import Tensor
from triton_interpreter import shuffled, traffic

from skipserve_kernels.fused.input_projection.inputs import Sizes
from skipserve_kernels.fused.launch import Selection
from skipserve_kernels.fused.norm_rows.triton import Target, norm_rows
from skipserve_kernels.plain.rms_norm.inputs import make_inputs

pytestmark = [pytest.mark.kernels, pytest.mark.fast]

EPSILON = 1e-5
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def poisoned(
    *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype, device=device)


def normed(x: Tensor, gain: Tensor) -> Tensor:
    """Normalise with torch's own operator."""
    return torch.rms_norm(x, (x.shape[1],), gain, EPSILON)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(1, 1), (3, 7), (5, 64), (2, 80), (2, 4096)], ids=str)
def test_rows_are_normalised(
    sizes: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> None:
    check_all_rows(*sizes, dtype, device)


def test_the_sizes_of_a_model(block: Sizes, row_counts: list[int], device: torch.device) -> None:
    for num_rows in row_counts:
        check_all_rows(num_rows, block.hidden, torch.bfloat16, device)


def check_all_rows(num_rows: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
    x, gain = make_inputs(num_rows, width, dtype=dtype, device=device)
    out = poisoned(num_rows, width, dtype=dtype, device=device)
    norm_rows(x, [Target(gain, out)], EPSILON, Selection(len(x)))
    wide = x.double()
    length = (wide.square().mean(-1, keepdim=True) + EPSILON).sqrt()
    assert_as_exact_as(out, normed(x, gain), wide / length * gain.double())


def test_a_row_of_zeros_stays_zero(device: torch.device) -> None:
    out = poisoned(2, 8, device=device)
    gain = torch.ones(8, device=device)
    norm_rows(torch.zeros_like(out), [Target(gain, out)], EPSILON, Selection(2))
    assert not out.any()


def test_two_gains_give_two_results(device: torch.device) -> None:
    x, gain = make_inputs(3, 24, device=device)
    first, second = (poisoned(3, 24, device=device) for _ in range(2))
    norm_rows(x, [Target(gain, first), Target(gain * 2, second)], EPSILON, Selection(3))
    assert torch.allclose(first, normed(x, gain))
    assert torch.allclose(second, normed(x, gain * 2))


def test_chosen_rows_go_to_chosen_places_of_strided_tensors(device: torch.device) -> None:
    x, gain = make_inputs(6, 24, device=device)
    wide = poisoned(5, 40, device=device)
    index, places = torch.tensor([[4, 0, 3], [1, 4, 0]], device=device)
    norm_rows(x, [Target(gain, wide[:, 8:32])], EPSILON, Selection(3, index), places)
    expected = poisoned(5, 40, device=device)
    expected[places, 8:32] = normed(x, gain)[index]
    assert torch.allclose(wide, expected, equal_nan=True)


def test_gates_choose_the_targets_of_each_entry(device: torch.device) -> None:
    x, gain = make_inputs(7, 40, device=device)
    index = torch.tensor([6, 2, 0, 5, 1], device=device)
    gates = torch.tensor([1 | 2, 4, 0, 8, 16 | 1], device=device)
    x[index[2]] = x[index[3]] = torch.nan
    attention, ffn = (poisoned(5, 40, device=device) for _ in range(2))
    targets = [
        Target(gain, attention, bits=1),
        Target(gain * 2, ffn, bits=2),
        Target(gain, ffn, bits=4 | 16),
    ]
    norm_rows(x, targets, EPSILON, Selection(5, index, gates))
    rows = normed(x, gain)[index]
    assert attention.isnan().all(dim=1).tolist() == [False, True, True, True, False]
    assert ffn.isnan().all(dim=1).tolist() == [False, False, True, True, False]
    assert torch.allclose(attention[[0, 4]], rows[[0, 4]])
    assert torch.allclose(ffn[0], 2 * rows[0])
    assert torch.allclose(ffn[[1, 4]], rows[[1, 4]])


def test_the_order_of_programs_does_not_matter() -> None:
    x, gain = make_inputs(9, 16)
    results = []
    for seed in range(2):
        results.append(poisoned(9, 16))
        with shuffled(seed):
            norm_rows(x, [Target(gain, results[-1])], EPSILON, Selection(9))
    assert torch.equal(*results)


def test_each_row_that_takes_part_is_read_once() -> None:
    x, gain = make_inputs(8, 64, dtype=torch.bfloat16)
    outs = [poisoned(8, 64, dtype=torch.bfloat16) for _ in range(2)]
    gates = torch.tensor([1, 3, 0, 2, 0, 4, 0, 1])
    with traffic(x=x, gain=gain, first=outs[0], second=outs[1], gates=gates) as moved:
        targets = [Target(gain, outs[0], bits=1), Target(gain, outs[1], bits=2)]
        norm_rows(x, targets, EPSILON, Selection(8, gates=gates))
    row_bytes = 64 * 2
    assert moved.requested("x.load") == moved.sectors("x.load") == 4 * row_bytes
    assert moved.requested("first.store") == 3 * row_bytes
    assert moved.requested("second.store") == 2 * row_bytes
    assert moved.distinct("gain.load") == row_bytes
    assert moved.requested("gates.load") == 8 * gates.itemsize
