"""The output projection: what it computes and, in Triton's interpreter, touches and moves."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from kernel_errors import assert_as_exact_as, assert_near_reference
from torch import Tensor
from triton_interpreter import shuffled, traffic

from skipserve_kernels.fused.input_projection.inputs import Sizes
from skipserve_kernels.fused.launch import Launch, Scratch, Selection
from skipserve_kernels.fused.output_projection import reference
from skipserve_kernels.fused.output_projection.inputs import Inputs, make_inputs
from skipserve_kernels.fused.output_projection.triton import (
    _tile_columns,
    output_projection,
    scratch_sizes,
)
from skipserve_kernels.fused.tiles import MAX_FUSED_ROWS, TILES, Kernel
from skipserve_kernels.projection import Projection

pytestmark = pytest.mark.kernels

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HIDDEN, QUERY, FFN = 64, 48, 208  # 256 inputs, which 16-bit splits cover exactly
ATTENTION_BIT, FFN_BIT = 1, 2


def _scratch(device: torch.device = CPU, hidden_size: int = HIDDEN) -> Scratch:
    scratch = Scratch.empty(*scratch_sizes(MAX_FUSED_ROWS, hidden_size), device)
    scratch.parts.fill_(float("nan"))
    return scratch


def _inputs(
    num_rows: int,
    dtype: torch.dtype = torch.float32,
    *,
    ffn_size: int = FFN,
    num_hidden_rows: int | None = None,
    device: torch.device = CPU,
) -> Inputs:
    return make_inputs(
        num_rows,
        HIDDEN,
        QUERY,
        ffn_size,
        dtype=dtype,
        num_hidden_rows=num_hidden_rows,
        device=device,
    )


def _split(monkeypatch: pytest.MonkeyPatch, splits: int, depth: int = 32) -> None:
    """Let all tiles have so many splits, of 16-bit depth `depth`."""
    for key, tile in list(TILES.items()):
        if key[1] is Kernel.OUTPUT_PROJECTION:
            split = replace(tile, columns=32, depth=depth, splits=splits)
            monkeypatch.setitem(TILES, key, split)


def _project(inputs: Inputs, selection: Selection, *, bits: int = 0) -> Tensor:
    """Return the residual stream after the projection of everything."""
    hidden = inputs.hidden.clone()
    scratch = _scratch(hidden.device, hidden.shape[1])
    output_projection(inputs.x, inputs.weights.all, hidden, Launch(selection, scratch, bits))
    assert not scratch.arrivals.any()
    return hidden


def _check_exact(
    inputs: Inputs, selection: Selection, *, has_bias: bool = True, bits: int = 0
) -> None:
    if not has_bias:
        inputs = replace(inputs, weights=replace(inputs.weights, both_biases=None))
    weight, bias = inputs.weights.all
    rows, x = selection.index, inputs.x
    if rows is None:
        rows = torch.arange(selection.num_rows, device=x.device)
    if selection.gates is not None:
        takes_part = selection.gates & bits != 0
        x, rows = x[takes_part], rows[takes_part]
    wide_bias = None if bias is None else bias.double()
    product = F.linear(x.double(), weight.double(), wide_bias)
    exact = inputs.hidden.double().index_add(0, rows, product)
    plain = inputs.hidden.index_add(0, rows, F.linear(x, weight, bias))
    layer = inputs.weights.all
    meaning = reference.output_projection(inputs.x, layer, inputs.hidden, selection, bits)
    assert_near_reference(meaning, exact)
    actual = _project(inputs, selection, bits=bits)
    assert_as_exact_as(actual, plain, exact)
    others = torch.ones_like(actual[:, 0], dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(actual[others], inputs.hidden[others])


@pytest.mark.fast
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_rows", [1, 3, 17, 40, 64, 65, 70])
def test_every_row_gets_its_product(
    num_rows: int, dtype: torch.dtype, device: torch.device
) -> None:
    _check_exact(_inputs(num_rows, dtype, device=device), Selection(num_rows))


def test_the_sizes_of_a_model(block: Sizes, row_counts: list[int], device: torch.device) -> None:
    """Of the attention's part, of the FFN's, and of both at once."""
    query_size = block.heads * block.head
    for num_rows in row_counts:
        inputs = make_inputs(
            num_rows, block.hidden, query_size, block.ffn, dtype=torch.bfloat16, device=device
        )
        _check_exact(inputs, Selection(num_rows, torch.arange(num_rows, device=device).flip(0)))
        weights = inputs.weights
        for x, part in (
            (inputs.x[:, :query_size], weights.output),
            (inputs.x[:, query_size:], weights.down),
        ):
            _check_part(replace(inputs, x=x), part)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ffn_size", [160, 200, 1040])
@pytest.mark.parametrize("has_bias", [False, True])
def test_inner_dimension_and_bias(
    has_bias: bool, ffn_size: int, dtype: torch.dtype, device: torch.device
) -> None:
    for num_rows in (5, 70):
        inputs = _inputs(num_rows, dtype, ffn_size=ffn_size, device=device)
        _check_exact(inputs, Selection(num_rows), has_bias=has_bias)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("num_rows", [3, 40, 70])
def test_rows_of_an_index(
    num_rows: int, has_bias: bool, dtype: torch.dtype, device: torch.device
) -> None:
    inputs = _inputs(num_rows, dtype, num_hidden_rows=2 * num_rows + 1, device=device)
    index = torch.randperm(2 * num_rows + 1, device=device)[:num_rows]
    _check_exact(inputs, Selection(num_rows, index), has_bias=has_bias)


@pytest.mark.parametrize("num_rows", [3, 70])
def test_the_first_rows_without_an_index(num_rows: int, device: torch.device) -> None:
    inputs = _inputs(num_rows, num_hidden_rows=num_rows + 5, device=device)
    for has_bias in (True, False):
        _check_exact(inputs, Selection(num_rows), has_bias=has_bias)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [ATTENTION_BIT, FFN_BIT, ATTENTION_BIT | FFN_BIT])
@pytest.mark.parametrize("has_index", [False, True])
def test_gates(has_index: bool, bits: int, dtype: torch.dtype, device: torch.device) -> None:
    inputs = _inputs(20, dtype, num_hidden_rows=30, device=device)
    index = torch.randperm(30, device=device)[:20] if has_index else None
    gates = torch.arange(20, device=device) % 4
    inputs.x[gates & bits == 0] = float("nan")
    _check_exact(inputs, Selection(20, index, gates), bits=bits)


@pytest.mark.parametrize("part", ["output", "down"])
@pytest.mark.parametrize("num_rows", [5, 70])
def test_slices_of_the_inputs_and_the_weight(
    num_rows: int, part: str, device: torch.device
) -> None:
    inputs = _inputs(num_rows, torch.bfloat16, device=device)
    x = inputs.x[:, :QUERY] if part == "output" else inputs.x[:, QUERY:]
    _check_part(replace(inputs, x=x), getattr(inputs.weights, part))


def _check_part(inputs: Inputs, part: Projection) -> None:
    """Check the product of all rows with a slice of the weight."""
    x, (weight, bias) = inputs.x, part
    assert bias is not None
    hidden = inputs.hidden.clone()
    scratch = _scratch(x.device, hidden.shape[1])
    output_projection(x, part, hidden, Launch(Selection(len(x)), scratch))
    product = F.linear(x.double(), weight.double(), bias.double())
    plain = inputs.hidden + F.linear(x, weight, bias)
    assert_as_exact_as(hidden, plain, inputs.hidden.double() + product)


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_splits_are_joined_in_any_order_of_arrival(
    monkeypatch: pytest.MonkeyPatch, splits: int
) -> None:
    _split(monkeypatch, splits)
    inputs = _inputs(7, torch.bfloat16)
    _check_exact(inputs, Selection(7))
    expected = _project(inputs, Selection(7))
    for seed in range(4):
        with shuffled(seed):
            assert torch.equal(_project(inputs, Selection(7)), expected)


def test_more_splits_than_there_is_to_split(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    _split(monkeypatch, 8, depth=64)
    _check_exact(_inputs(7, torch.bfloat16, ffn_size=112, device=device), Selection(7))


def test_row_tiles_join_their_own_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    _split(monkeypatch, 2)
    key = (90, Kernel.OUTPUT_PROJECTION, 64)
    monkeypatch.setitem(TILES, key, replace(TILES[key], rows=16))
    inputs = _inputs(40)
    hidden = inputs.hidden.clone()
    scratch = replace(_scratch(), arrivals=torch.zeros(6, dtype=torch.int32))
    with shuffled(1):
        output_projection(inputs.x, inputs.weights.all, hidden, Launch(Selection(40), scratch))
    torch.testing.assert_close(hidden, _plain(inputs))
    assert not scratch.arrivals.any()


def _plain(inputs: Inputs) -> Tensor:
    return inputs.hidden + F.linear(inputs.x, *inputs.weights.all)


@pytest.mark.fast
def test_scratch_is_left_as_the_next_launch_needs_it(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    _split(monkeypatch, 4)
    scratch = _scratch(device)
    for num_rows in (16, 3, 20):
        inputs = _inputs(num_rows, device=device)
        hidden = inputs.hidden.clone()
        launch = Launch(Selection(num_rows), scratch)
        output_projection(inputs.x, inputs.weights.all, hidden, launch)
        torch.testing.assert_close(hidden, _plain(inputs))
        assert not scratch.arrivals.any()


def test_a_row_does_not_depend_on_the_others(device: torch.device) -> None:
    inputs = _inputs(16, torch.bfloat16, device=device)
    together = _project(inputs, Selection(16))
    for num_rows in (1, 9):
        few = replace(inputs, x=inputs.x[:num_rows], hidden=inputs.hidden[:num_rows])
        assert torch.equal(_project(few, Selection(num_rows)), together[:num_rows])


@pytest.mark.fast
@pytest.mark.parametrize("num_rows", [1, 16, 40])
def test_traffic(num_rows: int) -> None:
    """Everything is moved once, and the parts of the splits there and back."""
    inputs = _inputs(num_rows, torch.bfloat16)
    index = torch.arange(num_rows)
    weight, bias = inputs.weights.all
    assert bias is not None
    scratch = _scratch()
    with traffic(
        x=inputs.x,
        weight=weight,
        bias=bias,
        hidden=inputs.hidden,
        index=index,
        parts=scratch.parts,
        arrivals=scratch.arrivals,
    ) as moved:
        launch = Launch(Selection(num_rows, index), scratch)
        output_projection(inputs.x, inputs.weights.all, inputs.hidden, launch)
    tile = TILES[90, Kernel.OUTPUT_PROJECTION, max(16, 1 << (num_rows - 1).bit_length())]
    splits = min(tile.splits, 256 // tile.depth)
    once = inputs.x.nbytes + weight.nbytes + bias.nbytes + 2 * inputs.hidden.nbytes + index.nbytes
    parts = 2 * splits * num_rows * HIDDEN * 4
    arrivals = 2 * 4 * HIDDEN // tile.columns
    assert moved.total_distinct() == once + parts + arrivals
    assert moved.requested("parts.store") == moved.requested("parts.load") == parts // 2
    assert moved.requested("weight.load") == weight.nbytes == moved.sectors("weight.load")
    assert moved.num_launches == 1


@pytest.mark.fast
@pytest.mark.parametrize("part", ["output", "down"])
def test_a_slice_is_read_by_whole_sectors(part: str) -> None:
    inputs = _inputs(4, torch.bfloat16)
    weight, _ = getattr(inputs.weights, part)
    x = inputs.x[:, : weight.shape[1]]
    scratch = _scratch()
    with traffic(
        x=x, weight=weight, hidden=inputs.hidden, parts=scratch.parts, arrivals=scratch.arrivals
    ) as moved:
        launch = Launch(Selection(4), scratch)
        output_projection(x, Projection(weight), inputs.hidden, launch)
    assert moved.requested("weight.load") == weight.numel() * weight.itemsize
    assert moved.sectors("weight.load") <= 1.05 * moved.requested("weight.load")


@pytest.mark.fast
def test_gated_out_rows_are_not_moved() -> None:
    inputs = _inputs(20, torch.bfloat16)
    gates = torch.zeros(20, dtype=torch.int64)
    weight = inputs.weights.weight
    scratch = _scratch()
    tensors = {
        "x": inputs.x,
        "weight": weight,
        "hidden": inputs.hidden,
        "parts": scratch.parts,
        "arrivals": scratch.arrivals,
        "gates": gates,
    }
    for num_taking_part in (0, 1, 5):
        gates[:num_taking_part] = FFN_BIT
        with traffic(**tensors) as moved:
            launch = Launch(Selection(20, None, gates), scratch, FFN_BIT)
            output_projection(inputs.x, Projection(weight), inputs.hidden, launch)
        assert moved.requested("weight.load") == (weight.nbytes if num_taking_part else 0)
        assert moved.distinct("x.load") == num_taking_part * 256 * 2
        for key in ("hidden.load", "hidden.store"):
            assert moved.requested(key) == num_taking_part * HIDDEN * 2
    assert not scratch.arrivals.any()


@pytest.mark.fast
def test_one_launch_moves_less_than_two() -> None:
    """Attention and FFN at once save a launch, and a turn of the residual stream and the parts."""
    num_rows = 16
    inputs = _inputs(num_rows, torch.bfloat16)
    weights, hidden, scratch = inputs.weights, inputs.hidden, _scratch()
    attention, activation = inputs.x[:, :QUERY], inputs.x[:, QUERY:]
    tensors = {
        "x": inputs.x,
        "weight": weights.weight,
        "hidden": hidden,
        "parts": scratch.parts,
        "arrivals": scratch.arrivals,
    }
    launch = Launch(Selection(num_rows), scratch)
    with traffic(**tensors) as together:
        output_projection(inputs.x, Projection(weights.all.weight), hidden, launch)
    with traffic(**tensors) as apart:
        output_projection(attention, Projection(weights.output.weight), hidden, launch)
        output_projection(activation, Projection(weights.down.weight), hidden, launch)
    assert together.num_launches == 1
    assert apart.num_launches == 2
    # QUERY inputs are less than one step, so they are not split and need no parts.
    assert apart.total_requested() - together.total_requested() == 2 * hidden.nbytes


def test_many_rows_are_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows take its one product in place; an index takes one launch of ours besides."""
    num_rows = MAX_FUSED_ROWS + 1
    inputs = _inputs(num_rows, torch.bfloat16)
    layer = Projection(inputs.weights.weight)
    scratch, index = _scratch(), torch.arange(num_rows)
    with traffic(x=inputs.x) as moved:
        output_projection(inputs.x, layer, inputs.hidden, Launch(Selection(num_rows), scratch))
    assert moved.num_launches == 0
    added = F.linear(inputs.x, layer.weight)
    monkeypatch.setattr(F, "linear", lambda *_: added)
    with traffic(added=added, hidden=inputs.hidden, index=index) as moved:
        launch = Launch(Selection(num_rows, index), scratch)
        output_projection(inputs.x, layer, inputs.hidden, launch)
    assert moved.num_launches == 1
    assert moved.total_requested() == added.nbytes + 2 * inputs.hidden.nbytes + index.nbytes


def test_many_rows_cannot_be_gated() -> None:
    inputs = _inputs(70)
    selection = Selection(70, None, torch.ones(70, dtype=torch.int64))
    with pytest.raises(AssertionError, match="70 rows are too many"):
        _project(inputs, selection)


@pytest.mark.fast
def test_columns_of_a_tile_divide_the_width() -> None:
    assert _tile_columns(4096, 32) == 32
    assert _tile_columns(5120, 64) == 64
    assert _tile_columns(48, 32) == 16
    with pytest.raises(AssertionError, match="40 columns"):
        _tile_columns(40, 32)


@pytest.mark.fast
@pytest.mark.parametrize("max_rows", [1, 16, 20, 64, 300])
def test_scratch_is_enough(max_rows: int) -> None:
    num_parts, num_arrivals = scratch_sizes(max_rows, 48)
    for (_, kernel, bucket), tile in TILES.items():
        if kernel is Kernel.OUTPUT_PROJECTION:
            assert num_parts >= tile.splits * min(max_rows, bucket) * 48
            assert num_arrivals >= -(-bucket // tile.rows) * 48 // _tile_columns(48, tile.columns)
