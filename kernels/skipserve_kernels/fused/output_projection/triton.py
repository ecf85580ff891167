"""The output projection on a GPU: x @ weight.T + bias, added to the residual stream in place.

For compute capability 8.0 and newer; D is a multiple of 16, the inner dimension is any number. Few
rows take one fused launch, which is bound by reading the weight; many take the library's product.
"""

import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from skipserve_kernels.fused.last_arrival import arrives_last
from skipserve_kernels.fused.launch import Launch
from skipserve_kernels.fused.tiles import TILES, Kernel, Tile, architecture, projection_tile
from skipserve_kernels.projection import Projection

_LEAST_COLUMNS = 16
_ADDED_COLUMNS = 1024


@triton.jit
def _multiply(
    total,
    x_rows,
    weight_rows,
    takes_part,
    first,
    INNER: tl.constexpr,
    DEPTH: tl.constexpr,
    STEPS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Add the product over STEPS times DEPTH of the inner dimension to `total`.

    EVEN: all of these are inside of the inner dimension.
    """
    inner = first + tl.arange(0, DEPTH)
    for _ in tl.range(0, STEPS):
        if EVEN:
            x = tl.load(x_rows + inner[None, :], mask=takes_part[:, None], other=0.0)
            weight = tl.load(weight_rows + inner[:, None])
        else:
            is_inside = inner < INNER
            x_mask = takes_part[:, None] & is_inside[None, :]
            x = tl.load(x_rows + inner[None, :], mask=x_mask, other=0.0)
            weight = tl.load(weight_rows + inner[:, None], mask=is_inside[:, None], other=0.0)
        total = tl.dot(x, weight, total, input_precision="ieee")
        inner += DEPTH
    return total


@triton.jit
def _sum_parts(
    places, part_size, takes_part, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr
):
    """Add up what the splits have stored, in their order."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for split in tl.static_range(SPLITS):
        part = places + split * part_size
        total += tl.load(part, mask=takes_part[:, None], other=0.0, cache_modifier=".cg")
    return total


@triton.jit(
    do_not_specialize=["num_rows", "bits"],
    do_not_specialize_on_alignment=["INDEX", "GATES"],
)
def _project(
    X,
    WEIGHT,
    BIAS,
    HIDDEN,
    INDEX,
    GATES,
    PARTS,
    ARRIVALS,
    num_rows,
    bits,
    WIDTH: tl.constexpr,
    INNER: tl.constexpr,
    X_STRIDE: tl.constexpr,
    WEIGHT_STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    SPLITS: tl.constexpr,
    STEPS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Compute one tile's sum over one of SPLITS ranges of the inner dimension.

    Programs of one column tile follow each other, so that row tiles share what was read of the
    weight.
    """
    entries = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    takes_part = entries < num_rows
    if GATES is not None:
        gates = tl.load(GATES + entries, mask=takes_part, other=0)
        takes_part = takes_part & ((gates & bits) != 0)
        if tl.max(takes_part.to(tl.int32), 0) == 0:
            return
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    split = tl.program_id(2)
    first = split * (STEPS * DEPTH)
    x_rows = X + entries[:, None].to(tl.int64) * X_STRIDE
    weight_rows = WEIGHT + columns[None, :].to(tl.int64) * WEIGHT_STRIDE
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    total = _multiply(total, x_rows, weight_rows, takes_part, first, INNER, DEPTH, STEPS, EVEN)
    if SPLITS > 1:
        part_size = num_rows.to(tl.int64) * WIDTH
        places = PARTS + entries[:, None].to(tl.int64) * WIDTH + columns[None, :]
        tl.store(places + split * part_size, total, mask=takes_part[:, None], cache_modifier=".cg")
        tile = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        if not arrives_last(ARRIVALS, tile, SPLITS):
            return
        total = _sum_parts(places, part_size, takes_part, ROWS, COLUMNS, SPLITS)
    if BIAS is not None:
        total += tl.load(BIAS + columns)[None, :].to(tl.float32)
    rows = entries.to(tl.int64)
    if INDEX is not None:
        rows = tl.load(INDEX + entries, mask=takes_part, other=0)
    hidden_places = HIDDEN + rows[:, None] * WIDTH + columns[None, :]
    total += tl.load(hidden_places, mask=takes_part[:, None], other=0.0).to(tl.float32)
    tl.store(hidden_places, total.to(HIDDEN.dtype.element_ty), mask=takes_part[:, None])


@triton.jit(do_not_specialize_on_alignment=["INDEX"])
def _add_rows(ADDED, HIDDEN, INDEX, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """Add one row's columns to the row that it belongs to."""
    entry = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_inside = columns < WIDTH
    row = entry
    if INDEX is not None:
        row = tl.load(INDEX + entry)
    added = tl.load(ADDED + entry * WIDTH + columns, mask=is_inside, other=0.0)
    places = HIDDEN + row * WIDTH + columns
    hidden = tl.load(places, mask=is_inside, other=0.0)
    total = hidden.to(tl.float32) + added.to(tl.float32)
    tl.store(places, total.to(HIDDEN.dtype.element_ty), mask=is_inside)


def output_projection(x: Tensor, layer: Projection, hidden: Tensor, launch: Launch) -> None:
    """Add x @ weight.T + bias to the selected rows of the residual stream.

    Args:
        x: one row for each entry, [N, I]; rows may lie apart.
        layer: weight [D, I], whose rows may lie apart, as those of a slice of W_out do; bias [D].
        hidden: the residual stream, [T, D]; changed in place.
        launch: which rows; gates only for as many as one fused launch takes.
    """
    (weight, bias), selection = layer, launch.selection
    assert x.shape == (selection.num_rows, weight.shape[1])
    assert hidden.shape[1] == weight.shape[0]
    assert hidden.is_contiguous()
    assert selection.num_rows <= len(hidden)
    assert x.stride(1) == weight.stride(1) == 1
    arch = architecture(x.device)
    tile = projection_tile(Kernel.OUTPUT_PROJECTION, selection.num_rows, x.dtype, arch)
    if tile is not None:
        _project_fused(x, layer, hidden, launch, tile=tile)
        return
    assert selection.gates is None, f"{selection.num_rows} rows are too many to be gated"
    if selection.index is None and bias is None:
        hidden[: selection.num_rows].addmm_(x, weight.t())
        return
    added = F.linear(x, weight, bias)
    width = hidden.shape[1]
    grid = (selection.num_rows, triton.cdiv(width, _ADDED_COLUMNS))
    _add_rows[grid](added, hidden, selection.index, WIDTH=width, COLUMNS=_ADDED_COLUMNS)


def _project_fused(
    x: Tensor, layer: Projection, hidden: Tensor, launch: Launch, *, tile: Tile
) -> None:
    selection, scratch = launch.selection, launch.scratch
    width, inner = layer.weight.shape
    columns = _tile_columns(width, tile.columns)
    steps = triton.cdiv(inner, tile.depth * tile.splits)
    # A small inner dimension does not fill all splits.
    splits = triton.cdiv(inner, tile.depth * steps)
    grid = (triton.cdiv(selection.num_rows, tile.rows), width // columns, splits)
    if splits > 1:
        assert scratch.parts.numel() >= splits * selection.num_rows * width
        assert scratch.arrivals.numel() >= grid[0] * grid[1]
    _project[grid](
        x,
        layer.weight,
        layer.bias,
        hidden,
        selection.index,
        selection.gates,
        scratch.parts,
        scratch.arrivals,
        selection.num_rows,
        launch.bits,
        WIDTH=width,
        INNER=inner,
        X_STRIDE=x.stride(0),
        WEIGHT_STRIDE=layer.weight.stride(0),
        ROWS=tile.rows,
        COLUMNS=columns,
        DEPTH=tile.depth,
        SPLITS=splits,
        STEPS=steps,
        EVEN=inner % (tile.depth * splits * steps) == 0,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


def _tile_columns(width: int, most: int) -> int:
    """Return the largest power of two up to `most` that divides the width."""
    columns = min(width & -width, most)
    assert columns >= _LEAST_COLUMNS, f"{width} columns are no multiple of {_LEAST_COLUMNS}"
    return columns


def scratch_sizes(max_rows: int, hidden_size: int) -> tuple[int, int]:
    """Return the parts and arrivals that up to so many rows need, on any architecture."""
    num_parts = max(
        tile.splits * min(max_rows, bucket) * hidden_size
        for (_, kernel, bucket), tile in TILES.items()
        if kernel is Kernel.OUTPUT_PROJECTION
    )
    return num_parts, hidden_size // _LEAST_COLUMNS
