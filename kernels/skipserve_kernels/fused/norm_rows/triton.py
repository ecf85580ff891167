"""Root mean square normalisation on a GPU: chosen rows, each read once, under up to three gains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from skipserve_kernels.fused.launch import Selection

MAX_TARGETS = 3

# A thread holds so many numbers of a row, up to the most threads that one program gets.
_NUMBERS_PER_WARP = 512
_MAX_WARPS = 16


@dataclass(frozen=True, slots=True)
class Target:
    """One of the results of a normalisation.

    Attributes:
        gain: what rows are multiplied by, [D].
        out: where they go, [N', D], with any stride between rows.
        bits: with gates, which entries take part: those with one of these bits.
    """

    gain: Tensor
    out: Tensor
    bits: int = 0


def norm_rows(
    x: Tensor,
    targets: Sequence[Target],
    epsilon: float,
    selection: Selection,
    places: Tensor | None = None,
) -> None:
    """Write x / sqrt(mean(x^2) + epsilon) * gain to each target.

    Entry i's row of x goes to row i of the results, or to row places[i]. Entries that take part in
    no target are not read. Targets may share a result; where an entry takes part in two of those,
    the later one stands. All arithmetic is float32, rounded once. Any GPU; D up to 65536.

    Args:
        x: [T, D].
        targets: one to three.
        epsilon: what is added to the mean.
        selection: the N rows.
        places: [N] int64, distinct; None where entry i goes to row i.
    """
    width = x.shape[1]
    assert 1 <= len(targets) <= MAX_TARGETS
    assert x.stride(1) == 1
    for target in targets:
        assert target.gain.shape == (width,)
        assert target.gain.is_contiguous()
        assert target.out.shape[1] == width
        assert target.out.stride(1) == 1
        assert places is not None or len(target.out) >= selection.num_rows
    arguments: list[Any] = []
    for place in range(MAX_TARGETS):
        if place < len(targets):
            target = targets[place]
            arguments += [target.gain, target.out, target.out.stride(0), target.bits]
        else:
            arguments += [None, None, 0, 0]
    block = triton.next_power_of_2(width)
    _norm_row[(selection.num_rows,)](
        x,
        selection.index,
        selection.gates,
        places,
        *arguments,
        x.stride(0),
        epsilon,
        D=width,
        BLOCK=block,
        num_warps=min(max(block // _NUMBERS_PER_WARP, 1), _MAX_WARPS),
    )


@triton.jit(
    do_not_specialize=["bits_0", "bits_1", "bits_2"],
    do_not_specialize_on_alignment=["INDEX", "GATES", "PLACES"],
)
def _norm_row(
    X,
    INDEX,
    GATES,
    PLACES,
    GAIN_0,
    OUT_0,
    stride_0,
    bits_0,
    GAIN_1,
    OUT_1,
    stride_1,
    bits_1,
    GAIN_2,
    OUT_2,
    stride_2,
    bits_2,
    x_stride,
    epsilon,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Normalise one row: the grid has a program for each entry."""
    entry = tl.program_id(0).to(tl.int64)
    gate = None
    if GATES is not None:
        # A target that is not there has no bits.
        gate = tl.load(GATES + entry)
        if (gate & (bits_0 | bits_1 | bits_2)) == 0:
            return
    row = entry
    if INDEX is not None:
        row = tl.load(INDEX + entry)
    place = entry
    if PLACES is not None:
        place = tl.load(PLACES + entry)
    columns = tl.arange(0, BLOCK)
    x = tl.load(X + row * x_stride + columns, mask=columns < D, other=0.0).to(tl.float32)
    normed = x * tl.rsqrt(tl.sum(x * x) / D + epsilon)
    _store_target(normed, GAIN_0, OUT_0 + place * stride_0, gate, bits_0, D, BLOCK)
    if OUT_1 is not None:
        _store_target(normed, GAIN_1, OUT_1 + place * stride_1, gate, bits_1, D, BLOCK)
    if OUT_2 is not None:
        _store_target(normed, GAIN_2, OUT_2 + place * stride_2, gate, bits_2, D, BLOCK)


@triton.jit
def _store_target(normed, GAIN, OUT, gate, bits, D: tl.constexpr, BLOCK: tl.constexpr):
    """Multiply a row by a gain and store it, if the entry takes part."""
    columns = tl.arange(0, BLOCK)
    is_stored = columns < D
    if gate is not None:
        is_stored &= (gate & bits) != 0
    gain = tl.load(GAIN + columns, mask=is_stored, other=0.0).to(tl.float32)
    tl.store(OUT + columns, (normed * gain).to(OUT.dtype.element_ty), mask=is_stored)
