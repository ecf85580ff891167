"""The input projection: what it computes and, in Triton's interpreter, what it reads for that."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from kernel_errors import assert_as_exact_as, assert_near_reference
from torch import Tensor
from triton_interpreter import Traffic, shuffled, traffic

from skipserve_kernels.fused import tiles
from skipserve_kernels.fused.input_projection import reference
from skipserve_kernels.fused.input_projection.inputs import Inputs, Sizes, make_inputs
from skipserve_kernels.fused.input_projection.packing import (
    InputWeights,
    Part,
    pack_factors,
    pack_inputs,
)
from skipserve_kernels.fused.input_projection.reference import Result
from skipserve_kernels.fused.input_projection.triton import (
    Bits,
    Normed,
    Projected,
    input_projection,
)
from skipserve_kernels.fused.launch import Selection
from skipserve_kernels.fused.paged import PagedKeyValues
from skipserve_kernels.projection import Projection

pytestmark = pytest.mark.kernels

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
GROUPED = Sizes(hidden=128, heads=4, kv_heads=2, head=16, ffn=48)
# Others: an inner dimension that the tile's does not divide, heads wider than a tile, and sections
# that only the narrowest tile divides.
UNEVEN = Sizes(hidden=80, heads=2, kv_heads=2, head=32, ffn=32)
WIDE = Sizes(hidden=64, heads=2, kv_heads=1, head=128, ffn=64)
NARROW = Sizes(hidden=48, heads=1, kv_heads=1, head=16, ffn=24)
LIBRARY_ROWS = tiles.MAX_FUSED_ROWS + 6
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Trial:
    """One call: its inputs, and results that hold NaN until they are written."""

    inputs: Inputs
    weights: InputWeights
    paged: PagedKeyValues
    query: Tensor
    activation: Tensor
    selection: Selection

    def run(self, part: Part, bits: Bits | None = None) -> None:
        input_projection(
            self.weights,
            part,
            self.selection,
            Normed(self.inputs.attention_input, self.inputs.ffn_input),
            Projected(self.query, self.activation),
            self.paged,
            bits or Bits(),
        )

    @property
    def rows(self) -> Tensor:
        """The row of the forward of each entry."""
        num_rows = self.selection.num_rows
        index = self.selection.index
        return torch.arange(num_rows, device=self.query.device) if index is None else index


def make_trial(
    num_rows: int,
    sizes: Sizes = GROUPED,
    *,
    dtype: torch.dtype = torch.float32,
    has_bias: bool = False,
    has_index: bool = True,
    device: torch.device = CPU,
) -> Trial:
    inputs = make_inputs(num_rows, sizes, dtype=dtype, has_bias=has_bias, device=device)
    weights = pack_inputs(*inputs.layers, head_size=sizes.head)
    poisoned = partial(torch.full, fill_value=torch.nan, dtype=dtype, device=device)
    cache = poisoned((len(inputs.slots) + 3, sizes.kv_heads, sizes.head))
    width = weights.query_size + weights.ffn_size
    joined = poisoned((num_rows, width))
    return Trial(
        inputs=inputs,
        weights=weights,
        paged=PagedKeyValues(
            keys=cache,
            values=cache.clone(),
            page_size=1,
            tables=inputs.slots[:, None],
            positions=inputs.positions,
            slots=inputs.slots,
            factors=pack_factors(inputs.cosine, inputs.sine),
        ),
        query=poisoned((num_rows, weights.query_size)),
        activation=joined[:, weights.query_size :],
        selection=Selection(num_rows, inputs.index if has_index else None),
    )


def in_plain_torch(trial: Trial, dtype: torch.dtype) -> Result:
    """Compute as HF does, in some type; then reorder heads as packed ones are."""
    inputs = trial.inputs
    positions = inputs.positions[trial.rows]
    cosine, sine = (
        table.to(dtype)[positions][:, None] * (positions >= 0)[:, None, None]
        for table in (inputs.cosine, inputs.sine)
    )

    def project(x: Tensor, layer: Projection) -> Tensor:
        bias = None if layer.bias is None else layer.bias.to(dtype)
        return F.linear(x.to(dtype), layer.weight.to(dtype), bias)

    def turn(x: Tensor) -> Tensor:
        heads = x.view(len(x), -1, inputs.cosine.shape[1])
        first, second = heads.chunk(2, -1)
        turned = heads * cosine + torch.cat((-second, first), -1) * sine
        return torch.stack(turned.chunk(2, -1), -1).flatten(1)

    query, key, value = (project(inputs.attention_input, layer) for layer in inputs.layers[:3])
    gate, up = (project(inputs.ffn_input, layer) for layer in inputs.layers[3:])
    return Result(turn(query), turn(key), value, F.silu(gate) * up)


def in_reference(trial: Trial) -> Result:
    inputs = trial.inputs
    return reference.input_projection(
        inputs.attention_input,
        inputs.ffn_input,
        inputs.layers,
        inputs.cosine,
        inputs.sine,
        inputs.positions[trial.rows],
    )


def assert_written(actual: Tensor, places: Tensor, plain: Tensor, exact: Tensor) -> None:
    """Check that row places[i] holds row i's result, where not negative, and the others nothing."""
    is_written = torch.zeros(len(actual), dtype=torch.bool, device=actual.device)
    is_written[places[places >= 0]] = True
    assert actual[~is_written].isnan().all()
    if is_written.any():
        assert_as_exact_as(actual[places[places >= 0]], plain[places >= 0], exact[places >= 0])


def check(
    trial: Trial,
    *,
    has_query: Tensor | bool = False,
    has_key_value: Tensor | bool = False,
    has_ffn: Tensor | bool = False,
) -> None:
    """Check what each entry has been given, and that nothing else was touched."""
    exact = in_plain_torch(trial, torch.float64)
    plain = in_plain_torch(trial, trial.query.dtype)
    for ours, formula in zip(in_reference(trial), exact, strict=True):
        assert_near_reference(ours, formula)
    device = trial.query.device
    entries = torch.arange(trial.selection.num_rows, device=device)
    as_flags = partial(torch.as_tensor, device=device)
    slots = torch.where(as_flags(has_key_value), trial.paged.slots[trial.rows], -1)
    query = torch.where(as_flags(has_query), entries, -1)
    ffn = torch.where(as_flags(has_ffn), entries, -1)
    assert_written(trial.query, query, plain.query, exact.query)
    assert_written(trial.paged.keys.flatten(1), slots, plain.key, exact.key)
    assert_written(trial.paged.values.flatten(1), slots, plain.value, exact.value)
    assert_written(trial.activation, ffn, plain.activation, exact.activation)


def check_part(trial: Trial, part: Part) -> None:
    check(
        trial,
        has_query=part.has_query,
        has_key_value=part.has_key_value,
        has_ffn=part.has_ffn,
    )


@pytest.mark.parametrize("num_rows", [pytest.param(3, marks=pytest.mark.fast), LIBRARY_ROWS])
@pytest.mark.parametrize("part", Part, ids=str)
def test_each_part_is_computed_and_nothing_else(
    part: Part, num_rows: int, device: torch.device
) -> None:
    trial = make_trial(num_rows, dtype=torch.bfloat16, device=device)
    trial.run(part)
    check_part(trial, part)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_rows", [1, 16, 17, 40, 64, LIBRARY_ROWS])
def test_any_number_of_rows(num_rows: int, dtype: torch.dtype, device: torch.device) -> None:
    trial = make_trial(num_rows, dtype=dtype, has_index=num_rows != 17, device=device)
    trial.run(Part.ALL)
    check_part(trial, Part.ALL)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_rows", [2, LIBRARY_ROWS])
@pytest.mark.parametrize("sizes", [GROUPED, UNEVEN, WIDE, NARROW], ids=str)
def test_shapes_and_biases(
    sizes: Sizes, num_rows: int, dtype: torch.dtype, device: torch.device
) -> None:
    trial = make_trial(num_rows, sizes, dtype=dtype, has_bias=True, device=device)
    trial.run(Part.ALL)
    check_part(trial, Part.ALL)


@pytest.mark.parametrize("part", [Part.ALL, Part.QUERY_KEY_VALUE, Part.FFN], ids=str)
def test_the_sizes_of_a_model(
    part: Part, block: Sizes, row_counts: list[int], device: torch.device
) -> None:
    for num_rows in row_counts:
        trial = make_trial(num_rows, block, dtype=torch.bfloat16, device=device)
        trial.run(part)
        check_part(trial, part)


@pytest.mark.fast
@pytest.mark.parametrize("num_rows", [4, LIBRARY_ROWS])
def test_one_input_serves_attention_and_ffn(num_rows: int, device: torch.device) -> None:
    trial = make_trial(num_rows, has_bias=True, device=device)
    trial = replace(trial, inputs=replace(trial.inputs, ffn_input=trial.inputs.attention_input))
    trial.run(Part.ALL)
    check_part(trial, Part.ALL)


@pytest.mark.fast
@pytest.mark.parametrize("num_rows", [4, LIBRARY_ROWS])
def test_rows_without_position_or_slot(num_rows: int, device: torch.device) -> None:
    trial = make_trial(num_rows, device=device)
    trial.paged.positions[trial.rows[:2]] = -1
    trial.paged.slots[trial.rows[1:3]] = -1
    trial.run(Part.ALL)
    check_part(trial, Part.ALL)
    assert not trial.query[:2].any()


@pytest.mark.fast
def test_inputs_may_have_strides(device: torch.device) -> None:
    trial = make_trial(3, device=device)
    both = torch.cat((trial.inputs.attention_input, trial.inputs.ffn_input), dim=1)
    attention, ffn = both.chunk(2, dim=1)
    wide = torch.full((3, trial.weights.query_size + 16), torch.nan, device=device)
    trial = replace(
        trial,
        inputs=replace(trial.inputs, attention_input=attention, ffn_input=ffn),
        query=wide[:, :-16],
    )
    trial.run(Part.ALL)
    check_part(trial, Part.ALL)
    assert wide[:, -16:].isnan().all()


@pytest.fixture
def _small_row_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 40 rows be three tiles."""
    for arch in (80, 90):
        key = (arch, tiles.Kernel.INPUT_PROJECTION, 64)
        monkeypatch.setitem(tiles.TILES, key, replace(tiles.TILES[key], rows=16))


@pytest.mark.usefixtures("_small_row_tiles")
def test_rows_may_be_several_tiles(device: torch.device) -> None:
    trial = make_trial(40, device=device)
    trial.run(Part.ALL)
    check_part(trial, Part.ALL)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_does_not_depend_on_the_others(dtype: torch.dtype, device: torch.device) -> None:
    trial = make_trial(9, dtype=dtype, device=device)
    trial.run(Part.ALL)
    alone = make_trial(1, dtype=dtype, device=device)
    alone.paged.positions[alone.rows] = trial.paged.positions[trial.rows[4]]
    inputs = replace(
        alone.inputs,
        attention_input=trial.inputs.attention_input[4:5],
        ffn_input=trial.inputs.ffn_input[4:5],
    )
    alone = replace(alone, inputs=inputs, weights=trial.weights)
    alone.run(Part.ALL)
    slot, its_slot = alone.paged.slots[alone.rows[0]], trial.paged.slots[trial.rows[4]]
    assert torch.equal(alone.query[0], trial.query[4])
    assert torch.equal(alone.paged.keys[slot], trial.paged.keys[its_slot])
    assert torch.equal(alone.paged.values[slot], trial.paged.values[its_slot])
    assert torch.equal(alone.activation[0], trial.activation[4])


def test_the_order_of_programs_does_not_matter() -> None:
    trials = [make_trial(3) for _ in range(2)]
    for seed, trial in enumerate(trials):
        with shuffled(seed):
            trial.run(Part.ALL)
    assert torch.equal(trials[0].query, trials[1].query)
    assert torch.equal(trials[0].activation, trials[1].activation)


BITS = Bits(query=1, key_value=2 | 8, ffn=4)


def gated(trial: Trial, gates: list[int]) -> Trial:
    """Let entries take part as their gates say, and poison what those without a bit would read."""
    assert trial.selection.index is not None
    index = trial.selection.index.clone()
    bits = torch.tensor(gates, device=index.device)
    is_out = bits & 15 == 0
    trial.inputs.attention_input[is_out] = torch.nan
    trial.inputs.ffn_input[is_out] = torch.nan
    index[is_out] = 1 << 40
    selection = replace(trial.selection, index=index, gates=bits)
    return replace(trial, selection=selection)


@pytest.mark.fast
@pytest.mark.parametrize("part", [Part.ALL, Part.QUERY_KEY_VALUE, Part.QUERY], ids=str)
def test_gates_choose_what_each_entry_takes_part_in(part: Part, device: torch.device) -> None:
    gates = [7, 1, 2, 4, 8, 0, 16, 5]
    trial = make_trial(len(gates), device=device)
    gated(trial, gates).run(part, BITS)
    trial.inputs.attention_input.nan_to_num_()
    trial.inputs.ffn_input.nan_to_num_()
    bits = torch.tensor(gates, device=device)
    check(
        trial,
        has_query=bits & BITS.query != 0,
        has_key_value=(bits & BITS.key_value != 0) & part.has_key_value,
        has_ffn=(bits & BITS.ffn != 0) & part.has_ffn,
    )


@contextmanager
def counted(trial: Trial) -> Iterator[Traffic]:
    """Count the traffic of a trial and trap what lies outside of its tensors."""
    tensors = {
        "weight": trial.weights.weight,
        "attention": trial.inputs.attention_input,
        "query": trial.query,
        "keys": trial.paged.keys,
        "values": trial.paged.values,
        "activation": trial.activation,
        "slots": trial.paged.slots,
        "positions": trial.paged.positions,
        "factors": trial.paged.factors,
    }
    if trial.inputs.ffn_input is not trial.inputs.attention_input:
        tensors["ffn"] = trial.inputs.ffn_input
    if trial.selection.gates is not None:
        tensors["gates"] = trial.selection.gates
    if trial.selection.index is not None:
        tensors["index"] = trial.selection.index
    with traffic(**tensors) as moved:
        yield moved


def num_input_bytes(trial: Trial) -> int:
    return trial.inputs.attention_input.nbytes


def ideal_bytes(trial: Trial, part: Part) -> int:
    """Return the bytes that a part must move at least, each once, with two different inputs.

    In numbers of the model: the part's rows of the weight times D; N D for each input; and for
    results N H C, 2 N K C, and N F. In others: eight bytes for the index, the position and the slot
    of each row, and 4 C for the factors of each position that occurs.
    """
    weights, rows = trial.weights, trial.rows
    num_rows = trial.selection.num_rows
    numbers = len(weights.rows(part)) * weights.hidden_size
    numbers += (part.has_attention + part.has_ffn) * num_rows * weights.hidden_size
    numbers += part.has_query * num_rows * weights.query_size
    numbers += part.has_key_value * num_rows * 2 * weights.key_value_size
    numbers += part.has_ffn * num_rows * weights.ffn_size
    num_indexes = part.has_attention * (1 + (trial.selection.index is not None))
    num_indexes += part.has_key_value
    factors = 4 * weights.head_size * len(trial.paged.positions[rows].unique())
    total: int = numbers * trial.query.itemsize + 8 * num_rows * num_indexes
    return total + part.has_attention * factors


@pytest.mark.parametrize("num_rows", [1, 16, 40])
@pytest.mark.parametrize("part", Part, ids=str)
def test_each_byte_is_moved_once(part: Part, num_rows: int) -> None:
    trial = make_trial(num_rows, dtype=torch.bfloat16)
    with counted(trial) as moved:
        trial.run(part)
    part_bytes = len(trial.weights.rows(part)) * trial.weights.hidden_size * 2
    assert moved.total_distinct() <= 1.05 * ideal_bytes(trial, part)
    assert moved.requested("weight.load") == part_bytes
    assert moved.sectors("weight.load") <= 1.05 * part_bytes


@pytest.mark.usefixtures("_small_row_tiles")
def test_several_tiles_of_rows_request_the_weights_again() -> None:
    trial = make_trial(40)
    with counted(trial) as moved:
        trial.run(Part.FFN)
    part_bytes = len(trial.weights.rows(Part.FFN)) * trial.weights.hidden_size * 4
    assert moved.distinct("weight.load") == part_bytes
    assert moved.requested("weight.load") == 3 * part_bytes


def test_attention_and_ffn_together_read_their_input_once() -> None:
    distinct = {}
    for part in (Part.ALL, Part.QUERY_KEY_VALUE, Part.FFN):
        trial = make_trial(8)
        trial = replace(trial, inputs=replace(trial.inputs, ffn_input=trial.inputs.attention_input))
        with counted(trial) as moved:
            trial.run(part)
        distinct[part] = moved.total_distinct()
    apart = distinct[Part.QUERY_KEY_VALUE] + distinct[Part.FFN]
    assert distinct[Part.ALL] == apart - num_input_bytes(trial)


def test_columns_in_which_no_entry_takes_part_read_no_weight() -> None:
    weights = make_trial(1).weights
    row_bytes = weights.hidden_size * 4
    expected = {16: 0, 0: 0, 1: weights.query_size, 2: 2 * weights.key_value_size}
    expected |= {4: 2 * weights.ffn_size, 5: weights.query_size + 2 * weights.ffn_size}
    for bits, num_weight_rows in expected.items():
        trial = gated(make_trial(3), [0, bits, 0])
        with counted(trial) as moved:
            trial.run(Part.ALL, BITS)
        assert moved.requested("weight.load") == num_weight_rows * row_bytes
        assert moved.distinct("attention.load") == row_bytes * bool(bits & 3)
        assert moved.distinct("ffn.load") == row_bytes * bool(bits & 4)


@pytest.mark.fast
def test_sections_that_no_tile_divides_are_refused() -> None:
    trial = make_trial(1, replace(NARROW, ffn=20))
    with pytest.raises(AssertionError, match=r"\(16, 16, 40\)"):
        trial.run(Part.ALL)


@pytest.mark.fast
def test_many_rows_with_gates_are_refused() -> None:
    trial = make_trial(LIBRARY_ROWS)
    with pytest.raises(AssertionError, match="70 rows with gates"):
        gated(trial, [1] * LIBRARY_ROWS).run(Part.ALL, BITS)


@pytest.mark.fast
def test_what_a_part_needs_must_be_there() -> None:
    trial = make_trial(1)
    weights, x, query = trial.weights, trial.inputs.attention_input, trial.query
    call = partial(input_projection, weights, Part.QUERY, trial.selection)
    with pytest.raises(AssertionError):
        call(Normed(), Projected(query), trial.paged)
    with pytest.raises(AssertionError):
        call(Normed(x), Projected(), trial.paged)
    with pytest.raises(AssertionError):
        call(Normed(x), Projected(query))
    with pytest.raises(AssertionError, match="1 x 64"):
        call(Normed(x), Projected(query[:, 1:]), trial.paged)
    call(Normed(x), Projected(query), trial.paged)
    check_part(trial, Part.QUERY)
