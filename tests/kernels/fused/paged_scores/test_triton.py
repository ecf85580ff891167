"""How much one row a sequence attends to each of its rows."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from kernel_errors import assert_as_exact_as, assert_near_reference
from torch import Tensor
from triton_interpreter import shuffled, traffic

from skipserve_kernels.fused.input_projection.inputs import Sizes
from skipserve_kernels.fused.paged_scores import reference
from skipserve_kernels.fused.paged_scores.inputs import Inputs, make_inputs
from skipserve_kernels.fused.paged_scores.triton import paged_scores
from skipserve_kernels.fused.tiles import Tile

pytestmark = pytest.mark.kernels

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Query heads, key heads; the last are more than one mean takes at once, and no multiple of it.
HEADS = [(2, 2), (4, 2), (4, 1), (3, 1), (20, 4)]
# One key; edges of pages of 4 and of tiles of 16; more tiles than are joined at once.
LENGTHS = (1, 3, 4, 5, 16, 17, 70, 300)
TILE = Tile(rows=1, columns=16, depth=0, num_warps=4, num_stages=1)


def draw(
    lengths: Sequence[int] = LENGTHS,
    heads: tuple[int, int] = (4, 2),
    head_size: int = 32,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device = CPU,
    page_size: int = 4,
) -> Inputs:
    return make_inputs(
        lengths,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_size=head_size,
        page_size=page_size,
        dtype=dtype,
        device=device,
    )


def score(inputs: Inputs, tile: Tile | None = TILE) -> Tensor:
    longest = int(inputs.starts.diff().max())
    return paged_scores(inputs.query, inputs.pages.keys, inputs.slots, inputs.starts, longest, tile)


def assert_scores(found: Tensor, inputs: Inputs) -> None:
    bounds = inputs.starts.tolist()
    for sequence, (first, last) in enumerate(pairwise(bounds)):
        query, keys = inputs.query[sequence], inputs.pages.of(sequence)[0]
        exact = _plain(query.double(), keys.double())
        assert_near_reference(reference.paged_scores(query, keys), exact)
        assert_as_exact_as(found[first:last], _plain(query.float(), keys.float()), exact)


def _plain(query: Tensor, keys: Tensor) -> Tensor:
    """Return what torch gives for a query [H, C] and keys [N, K, C] in their type."""
    by_group = query.view(keys.shape[1], -1, query.shape[1])
    scores = by_group @ keys.permute(1, 2, 0) / math.sqrt(query.shape[1])
    return scores.softmax(dim=-1).flatten(0, 1).mean(dim=0)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scores_are_as_exact_as_torch(dtype: torch.dtype, device: torch.device) -> None:
    inputs = draw(dtype=dtype, device=device)
    assert_scores(score(inputs), inputs)


@pytest.mark.parametrize("head_size", [16, 64, 256])
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_any_heads(heads: tuple[int, int], head_size: int, device: torch.device) -> None:
    inputs = draw((33, 5), heads, head_size, torch.float32, device)
    assert_scores(score(inputs), inputs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_tile_of_the_table(block: Sizes, dtype: torch.dtype, device: torch.device) -> None:
    lengths = (640, 4000, 100) if device.type == "cuda" else (130, 1)
    inputs = draw(lengths, (block.heads, block.kv_heads), block.head, dtype, device, page_size=16)
    assert_scores(score(inputs, tile=None), inputs)


@pytest.mark.fast
def test_shares_of_one_key_and_of_equal_keys(device: torch.device) -> None:
    inputs = draw((1, 40), device=device, dtype=torch.float32)
    inputs.pages.keys[inputs.pages.slots(1)] = 1.0
    found = score(inputs)
    assert found[0] == 1
    torch.testing.assert_close(found[1:], torch.full_like(found[1:], 1 / 40))


@pytest.mark.fast
def test_large_scores_stay_finite(device: torch.device) -> None:
    """The row that is looked at takes all, however far the others are behind."""
    inputs = draw((40,), device=device, dtype=torch.float32)
    inputs.query.fill_(100.0)
    inputs.pages.keys[inputs.slots] = -100.0
    inputs.pages.keys[inputs.slots[23]] = 100.0
    assert score(inputs).tolist() == [float(row == 23) for row in range(40)]


def test_a_sequence_does_not_depend_on_the_others(device: torch.device) -> None:
    """To the bit, whoever is beside it and whatever the longest is."""
    inputs = draw(device=device)
    every = score(inputs)
    for sequence in range(len(LENGTHS)):
        first, last = inputs.starts[sequence : sequence + 2].tolist()
        assert torch.equal(score(inputs.only(sequence)), every[first:last])


def test_the_order_of_programs_does_not_matter() -> None:
    inputs = draw((7, 100), heads=(3, 1), dtype=torch.float32)
    first = score(inputs)
    for seed in range(3):
        with shuffled(seed):
            assert torch.equal(score(inputs), first)


def test_keys_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    num_heads, num_kv_heads, head_size, lengths = 4, 2, 64, (33, 1, 120)
    inputs = draw(lengths, (num_heads, num_kv_heads), head_size)
    num_rows, num_tiles = sum(lengths), -(-120 // 16)
    rooms = {
        "scores": torch.full((num_heads, num_rows), torch.nan),
        "logarithms": torch.full((len(lengths), num_heads, num_tiles), torch.nan),
        "out": torch.full((num_rows,), torch.nan),
    }
    given, real = iter(rooms.values()), Tensor.new_empty
    monkeypatch.setattr(
        Tensor,
        "new_empty",
        lambda *args, **options: next(given) if "dtype" in options else real(*args, **options),
    )
    keys, query = inputs.pages.keys, inputs.query
    with traffic(
        query=query, keys=keys, slots=inputs.slots, starts=inputs.starts, **rooms
    ) as moved:
        assert_scores(score(inputs), inputs)

    read = num_rows * keys[0].nbytes
    assert moved.requested("keys.load") == moved.distinct("keys.load") == read
    assert moved.sectors("keys.load") == read
    # A number a row and head, written once and read once; a slot by each key head.
    assert moved.requested("scores.store") == moved.requested("scores.load") == 4 * 4 * num_rows
    assert moved.requested("slots.load") == num_kv_heads * inputs.slots.nbytes
    ideal = read + query.nbytes + inputs.slots.nbytes + 2 * 4 * 4 * num_rows + 4 * num_rows
    assert moved.total_distinct() <= 1.05 * ideal
