"""What the mended interpreter promises: bf16 as torch has it, traps, counts and any order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton_interpreter import shuffled, traffic

pytestmark = [pytest.mark.kernels, pytest.mark.fast]


def _kernel(function: Callable[..., Any]) -> Any:
    """Decorate a kernel; Triton's own decorator has no types."""
    return triton.jit(function, do_not_specialize=["num"])


@_kernel
def _copy(x: Any, out: Any, num: int, stride: int, SIZE: tl.constexpr) -> None:
    """Copy every so manieth number; what it does not copy is -1."""
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    value = tl.load(x + place * stride, mask=place < num, other=-1.0, cache_modifier=".cg")
    tl.store(out + place, value, cache_modifier=".cg")


@_kernel
def _compute(a: Any, b: Any, out: Any, SIZE: tl.constexpr) -> None:
    i = tl.arange(0, SIZE)
    x, y = tl.load(a + i), tl.load(b + i)
    tl.store(out + i, x + y)
    tl.store(out + SIZE + i, x * y)
    tl.store(out + 2 * SIZE + i, x * 0.1)
    tl.store(out + 3 * SIZE + i, tl.where(x > y, x, -y))
    tl.store(out + 4 * SIZE + i, tl.maximum(x, y))
    tl.store(out + 5 * SIZE + i, x.to(tl.int32).to(x.dtype))
    tl.store(out + 6 * SIZE + i, x + tl.sum(y.to(tl.float32), 0).to(x.dtype))
    tl.store(out + 7 * SIZE + i, tl.exp(x.to(tl.float32)).to(x.dtype))
    tl.store(out + 8 * SIZE + i, x - tl.max(y, 0))
    tl.store(out + 9 * SIZE + i, tl.fma(x, y, x))
    tl.store(out + 10 * SIZE + i, tl.clamp(x, -y, y))


@_kernel
def _multiply(
    a: Any, b: Any, out: Any, SIZE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr
) -> None:
    i, k = tl.arange(0, SIZE), tl.arange(0, DEPTH)
    x = tl.load(a + i[:, None] * DEPTH + k[None, :])
    y = tl.load(b + k[:, None] * SIZE + i[None, :])
    product = tl.dot(x, y, input_precision=PRECISION)
    tl.store(out + i[:, None] * SIZE + i[None, :], product.to(out.dtype.element_ty))


@_kernel
def _copy_if(x: Any, out: Any, num: int, SIZE: tl.constexpr) -> None:
    """Copy everything or nothing."""
    i = tl.arange(0, SIZE)
    value = tl.load(x + i, mask=num > 3, other=0.0)
    tl.store(out + i, value, mask=(i < SIZE) & (num > 3))


@_kernel
def _sum(x: Any, SIZE: tl.constexpr) -> None:
    tl.store(x, tl.sum(tl.load(x + tl.arange(0, SIZE)), 0))


@_kernel
def _cast(x: Any, out: Any, SIZE: tl.constexpr) -> None:
    i = tl.arange(0, SIZE)
    tl.store(out + i, tl.load(x + i).to(out.dtype.element_ty))


@_kernel
def _append(log: Any, count: Any, num: int) -> None:
    """Write each program's number at the place that it takes; programs from `num` on do not."""
    number = tl.program_id(0)
    if number >= num:
        return
    place = tl.atomic_add(count, 1, sem="acq_rel")
    tl.debug_barrier()
    tl.store(log + place, number)


@_kernel
def _count(out: Any, extra: Any, num: int) -> None:
    """Add `num` and half of it, in loops of bounds that are not known before; and an optional."""
    total = tl.zeros((1,), tl.float32)
    for _ in tl.range(0, num, num_stages=2):
        total += 1.0
    for _ in range(tl.cdiv(num, 2)):
        total += 1.0
    if extra is not None:
        total += tl.load(extra)
    tl.store(out + tl.arange(0, 1), total)


@_kernel
def _fill(outs: Any, values: Any, SIZE: tl.constexpr) -> None:
    """Fill two tensors with a value each."""
    i = tl.arange(0, SIZE)
    tl.store(outs[0] + i, values[0])
    tl.store(outs[1] + i, values[1])


@_kernel
def _load_without_other(x: Any, out: Any, num: int, SIZE: tl.constexpr) -> None:
    i = tl.arange(0, SIZE)
    tl.store(out + i, tl.load(x + i, mask=i < num))


@_kernel
def _assert_positive(num: int) -> None:
    tl.device_assert(num > 0, "not positive")


def test_bf16_is_computed_as_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 64, generator=generator).bfloat16() * 3
    out = torch.empty(11, 64, dtype=torch.bfloat16)
    _compute[(1,)](x, y, out, 64)
    expected = [x + y, x * y, x * torch.tensor(0.1).bfloat16(), torch.where(x > y, x, -y)]
    expected += [x.maximum(y), x.int().bfloat16(), x + y.float().sum().bfloat16()]
    expected += [x.float().exp().bfloat16(), x - y.max()]
    expected += [(x.float() * y.float() + x.float()).bfloat16(), x.clamp(-y, y)]
    assert torch.equal(out, torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_products_are_exact(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(16, 32, generator=generator).to(dtype)
    b = torch.randn(32, 16, generator=generator).to(dtype)
    out = torch.empty(16, 16)
    _multiply[(1,)](a, b, out, 16, 32, "ieee")
    torch.testing.assert_close(out, a.float() @ b.float())
    rounded = torch.empty(16, 16, dtype=dtype)
    _multiply[(1,)](a, b, rounded, 16, 32, "ieee")
    assert torch.equal(rounded, out.to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_casts_round_to_nearest_even(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    ties = 1 + eps * torch.tensor([0.25, 0.5, 0.75, 1.5, 2.5, -0.25, 0.5 + 2**-8, 3.5])
    special = torch.tensor([float("inf"), -float("inf"), 0.0, -0.0, 1e30, -1e-30, 65504.0, 1e-40])
    x = torch.cat([ties, special])
    out = torch.empty(16, dtype=dtype)
    _cast[(1,)](x, out, 16)
    assert torch.equal(out, x.to(dtype))
    back = torch.empty(16)
    _cast[(1,)](out, back, 16)
    assert torch.equal(back, x.to(dtype).float())


def test_a_nan_stays_one() -> None:
    out = torch.empty(1, dtype=torch.bfloat16)
    _cast[(1,)](torch.tensor([float("nan")]), out, 1)
    assert out.isnan().all()


def test_what_a_gpu_does_otherwise_is_refused() -> None:
    a, out = torch.ones(16, 32), torch.empty(16, 16)
    with pytest.raises(ValueError, match="tf32"):
        _multiply[(1,)](a, a, out, 16, 32, "tf32")
    with pytest.raises(AssertionError, match="K >= 16"):
        _multiply[(1,)](a, a, out, 16, 8, "ieee")
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(TypeError, match="make it float32 first"):
            _sum[(1,)](torch.ones(16, dtype=dtype), 16)
    with pytest.raises(AssertionError, match="not positive"):
        _assert_positive[(1,)](0)


def test_what_the_interpreter_does_wrong_is_refused() -> None:
    with pytest.raises(TypeError, match="no atomic operations on bf16"):
        _append[(1,)](torch.ones(1), torch.zeros(1, dtype=torch.bfloat16), 1)


def test_masked_out_numbers_are_garbage_without_other() -> None:
    out, places = torch.empty(16), torch.empty(16, dtype=torch.int64)
    _load_without_other[(1,)](torch.ones(9), out, 9, 16)
    assert (out[:9] == 1).all()
    assert out[9:].isnan().all()
    _load_without_other[(1,)](torch.ones(9, dtype=torch.int64), places, 9, 16)
    assert (places[9:] == -1).all()


def test_loops_returns_and_missing_arguments() -> None:
    out = torch.empty(1)
    _count[(1,)](out, None, 5)
    assert out.item() == 8
    _count[(1,)](out, torch.ones(1), 0)
    assert out.item() == 1


def test_tuples() -> None:
    outs = (torch.empty(4), torch.empty(4))
    _fill[(1,)](outs, (1, 2), 4)
    assert torch.equal(torch.stack(outs), torch.tensor([[1.0] * 4, [2.0] * 4]))


def test_accesses_out_of_bounds_are_trapped() -> None:
    x, out = torch.ones(32), torch.empty(32)
    _copy[(2,)](x, out, 32, 1, 16)
    with pytest.raises(IndexError, match=r"load out of bounds: 8 of 8 .* program \(1, 0, 0\)"):
        _copy[(2,)](x, out, 24, 2, 16)
    with pytest.raises(IndexError, match="store out of bounds"):
        _copy[(2,)](x, out[16:].clone(), 32, 1, 16)
    with pytest.raises(IndexError, match="load out of bounds: 16 of 16"), traffic(out=out):
        _copy[(2,)](x, out, 32, 1, 16)
    with pytest.raises(IndexError, match="atomic out of bounds"), traffic(out=out):
        _append[(1,)](out, torch.zeros(1, dtype=torch.int32), 1)


def test_traffic_of_a_copy() -> None:
    x, out = torch.randn(40, dtype=torch.float16), torch.empty(64, dtype=torch.float16)
    with traffic(x=x, out=out) as moved:
        _copy[(4,)](x, out, 40, 1, 16)
    assert torch.equal(out[:40], x)
    assert moved.requested("x.load") == moved.distinct("x.load") == 80
    assert moved.distinct("out.store") == 128
    assert moved.total_distinct() == moved.total_requested() == 208
    assert moved.requested("x.store") == moved.requested("out.load") == 0
    with pytest.raises(KeyError):
        moved.distinct("y.load")


def test_traffic_sees_strides_and_repetitions() -> None:
    storage, out = torch.randn(256 + 8), torch.empty(16)
    x = storage[-storage.data_ptr() % 32 // 4 :]
    with traffic(x=x, out=out) as moved:
        for _ in range(3):
            _copy[(1,)](x, out, 16, 16, 16)
    assert moved.num_launches == 3
    assert moved.requested("x.load") == 3 * 64
    assert moved.distinct("x.load") == 64
    assert moved.sectors("x.load") == 3 * 16 * 32


@pytest.mark.parametrize("num", [3, 4])
def test_traffic_of_scalar_masks(num: int) -> None:
    x, out = torch.randn(16), torch.zeros(16)
    with traffic(x=x, out=out) as moved:
        _copy_if[(1,)](x, out, num, 16)
    expected = 64 if num > 3 else 0
    assert moved.distinct("x.load") == moved.requested("out.store") == expected
    assert torch.equal(out, x if num > 3 else torch.zeros(16))


def test_traffic_wants_one_name_a_storage() -> None:
    x = torch.ones(4, 4)
    with pytest.raises(ValueError, match="share a storage"), traffic(x=x, row=x[1]):
        pass


def test_shuffled_launches_run_each_program_once() -> None:
    orders = []
    for seed in (1, 1, 2):
        log, count = torch.full((64,), -1), torch.zeros(1, dtype=torch.int32)
        with shuffled(seed):
            _append[(4, 8, 2)](log, count, 3)
        orders.append(log.tolist())
        assert count.item() == 48
    log = torch.full((32,), -1)
    with shuffled(1):
        _append[(32,)](log, torch.zeros(1, dtype=torch.int32), 32)
    assert sorted(log.tolist()) == list(range(32)) != log.tolist()
    assert orders[0] == orders[1] != orders[2]
