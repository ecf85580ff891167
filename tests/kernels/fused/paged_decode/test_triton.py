"""Attention of one row a sequence over its pages."""

from collections.abc import Sequence

import pytest
import torch
from paged_attention import assert_attends, make_query
from torch import Tensor
from triton_interpreter import shuffled, traffic

from skipserve_kernels.fused.input_projection.inputs import Sizes
from skipserve_kernels.fused.launch import Launch, Scratch, Selection
from skipserve_kernels.fused.paged_decode.inputs import Pages, make_pages
from skipserve_kernels.fused.paged_decode.triton import paged_decode, scratch_sizes
from skipserve_kernels.fused.tiles import MAX_FUSED_ROWS, Tile, architecture, decode_tile

pytestmark = pytest.mark.kernels

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
COLUMNS = 16
# Query heads, key heads.
HEADS = [(2, 2), (4, 2), (4, 1), (3, 1)]
# One key; edges of pages of 4 and of tiles; several tiles.
LENGTHS = (1, 3, 4, 5, 16, 17, 40, 100)


def small_tile(splits: int) -> Tile:
    return Tile(rows=1, columns=COLUMNS, depth=0, num_warps=4, num_stages=1, splits=splits)


def draw(
    lengths: Sequence[int] = LENGTHS,
    heads: tuple[int, int] = (4, 2),
    head_size: int = 32,
    page_size: int = 4,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device = CPU,
) -> tuple[Pages, Tensor]:
    pages = make_pages(
        lengths,
        num_heads=heads[1],
        head_size=head_size,
        page_size=page_size,
        dtype=dtype,
        device=device,
    )
    return pages, make_query(len(lengths), heads[0], pages)


def ends(pages: Pages) -> Tensor:
    """Return the last position of each sequence."""
    return torch.tensor(pages.lengths, device=pages.keys.device) - 1


def room_for(query: Tensor, splits: int) -> Scratch:
    """Return just enough scratch memory, as a launch finds it: no number in it means anything."""
    num_heads = query.shape[0] * query.shape[1]
    scratch = Scratch.empty(splits * (query.numel() + num_heads), num_heads, query.device)
    scratch.parts.fill_(torch.nan)
    return scratch


def attend(
    pages: Pages,
    query: Tensor,
    *,
    positions: Tensor | None = None,
    selection: Selection | None = None,
    splits: int = 2,
    bits: int = 0,
    scratch: Scratch | None = None,
    out: Tensor | None = None,
) -> Tensor:
    out = torch.full_like(query.flatten(1), torch.nan) if out is None else out
    scratch = scratch or room_for(query, splits)
    paged_decode(
        query,
        pages.seen_from(ends(pages) if positions is None else positions),
        out,
        Launch(selection or Selection(len(query)), scratch, bits),
        small_tile(splits),
    )
    assert not scratch.arrivals.any()
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_rows_attend_to_their_sequences(
    heads: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> None:
    pages, query = draw(heads=heads, dtype=dtype, device=device)
    out = attend(pages, query)
    assert_attends(out, query, pages, range(len(query)), ends(pages).tolist())


@pytest.mark.parametrize("splits", [1, 2, 8])
@pytest.mark.parametrize("page_size", [4, 16, 64])
def test_sequences_are_split_and_joined(page_size: int, splits: int, device: torch.device) -> None:
    lengths = (1, 16, 17, 65, 150)
    pages, query = draw(lengths, page_size=page_size, dtype=torch.float32, device=device)
    out = attend(pages, query, splits=splits)
    assert_attends(out, query, pages, range(len(query)), ends(pages).tolist())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_size", [16, 64, 128, 256])
def test_the_tables_own_tiles(head_size: int, dtype: torch.dtype, device: torch.device) -> None:
    check_own_tile((5, 300), Sizes(0, 2, 1, head_size, 0), dtype, device)


def test_the_sizes_of_a_model(block: Sizes, row_counts: list[int], device: torch.device) -> None:
    for num_rows in (count for count in row_counts if count <= MAX_FUSED_ROWS):
        lengths = [1 + 647 * row // num_rows for row in range(1, num_rows)]
        check_own_tile((*lengths, 648), block, torch.bfloat16, device)


def check_own_tile(
    lengths: Sequence[int], sizes: Sizes, dtype: torch.dtype, device: torch.device
) -> None:
    pages, query = draw(lengths, (sizes.heads, sizes.kv_heads), sizes.head, 16, dtype, device)
    out = torch.full_like(query.flatten(1), torch.nan)
    needed = len(lengths), sizes.heads, sizes.kv_heads, sizes.head, architecture(device)
    scratch = Scratch.empty(*scratch_sizes(*needed), device)
    scratch.parts.fill_(torch.nan)
    launch = Launch(Selection(len(lengths)), scratch)
    paged_decode(query, pages.seen_from(ends(pages)), out, launch)
    assert_attends(out, query, pages, range(len(lengths)), ends(pages).tolist())


@pytest.mark.fast
def test_a_row_may_see_less_than_its_sequence(device: torch.device) -> None:
    pages, query = draw((50, 50, 50, 50), device=device)
    out = attend(pages, query, positions=torch.tensor([0, 15, 16, 48], device=device))
    assert_attends(out, query, pages, range(4), [0, 15, 16, 48])


@pytest.mark.fast
@pytest.mark.parametrize("splits", [1, 2])
def test_a_row_without_keys_gives_zeros(splits: int, device: torch.device) -> None:
    pages, query = draw((40, 40, 40), device=device)
    positions = torch.tensor([-1, 39, -1], device=device)
    out = attend(pages, query, positions=positions, splits=splits)
    assert_attends(out, query, pages, range(3), [-1, 39, -1])


def test_entries_are_the_rows_of_the_index(device: torch.device) -> None:
    pages, query = draw(device=device)
    rows = [6, 0, 7, 3]
    every = attend(pages, query)
    index = torch.tensor(rows, device=device)
    chosen = attend(pages, query[rows], selection=Selection(4, index))
    assert torch.equal(chosen, every[rows])


@pytest.mark.fast
def test_gates_leave_entries_alone() -> None:
    pages, query = draw((40, 20, 50, 30))
    every = attend(pages, query)
    selection = Selection(4, torch.tensor([3, 0, 2, 1]), torch.tensor([1, 2, 3, 0]))
    out = torch.full_like(every, 7.0)
    query = query[[3, 0, 2, 1]].contiguous()
    query[[0, 3]] = torch.nan
    tensors = {"keys": pages.keys, "values": pages.values, "tables": pages.tables}
    scratch = room_for(query, 2)
    positions, gates, index = ends(pages), selection.gates, selection.index
    assert gates is not None
    assert index is not None
    others = {"parts": scratch.parts, "arrivals": scratch.arrivals, "positions": positions}
    with traffic(**tensors, **others, query=query, out=out, gates=gates, index=index) as moved:
        attend(
            pages, query, positions=positions, selection=selection, bits=2, out=out, scratch=scratch
        )
    assert torch.equal(out[1], every[0])
    assert torch.equal(out[2], every[2])
    assert (out[[0, 3]] == 7.0).all()
    number_bytes = pages.keys[0].nbytes
    assert moved.requested("keys.load") == moved.requested("values.load") == 90 * number_bytes
    assert moved.requested("query.load") == 2 * 2 * query[0].nbytes
    assert moved.requested("index.load") == 2 * 2 * 2 * index[0].nbytes


@pytest.mark.fast
def test_rows_of_the_output_may_be_apart(device: torch.device) -> None:
    pages, query = draw((40, 20), device=device)
    width = query[0].numel()
    wide = torch.full((2, width + 24), 7.0, dtype=query.dtype, device=device)
    attend(pages, query, out=wide[:, :width])
    assert torch.equal(wide[:, :width], attend(pages, query))
    assert (wide[:, width:] == 7.0).all()


def test_the_order_of_programs_does_not_matter() -> None:
    pages, query = draw((7, 64, 128), heads=(3, 1), dtype=torch.float32)
    scratch = room_for(query, 8)
    first = attend(pages, query, splits=8, scratch=scratch)
    for seed in range(4):
        with shuffled(seed):
            again = attend(pages, query, splits=8, scratch=scratch)
        assert torch.equal(again, first)


def test_a_row_does_not_depend_on_the_others(device: torch.device) -> None:
    pages, query = draw(device=device)
    every = attend(pages, query)
    for row in range(len(query)):
        selection = Selection(1, torch.tensor([row], device=device))
        alone = attend(pages, query[row:][:1], selection=selection)
        assert torch.equal(alone[0], every[row])


@pytest.mark.parametrize("splits", [1, 8])
@pytest.mark.parametrize("page_size", [4, 64])
def test_keys_are_read_once(page_size: int, splits: int) -> None:
    num_heads, num_kv_heads, head_size = 4, 2, 64
    pages, query = draw((33, 1, 120), (num_heads, num_kv_heads), head_size, page_size)
    out, scratch = torch.empty_like(query.flatten(1)), room_for(query, splits)
    positions = ends(pages)
    with traffic(
        query=query,
        keys=pages.keys,
        values=pages.values,
        tables=pages.tables,
        positions=positions,
        out=out,
        parts=scratch.parts,
        arrivals=scratch.arrivals,
    ) as moved:
        attend(pages, query, positions=positions, splits=splits, out=out, scratch=scratch)

    read = sum(pages.lengths) * pages.keys[0].nbytes
    for name in ("keys.load", "values.load"):
        assert moved.requested(name) == moved.distinct(name) == moved.sectors(name) == read
    # 33 keys are three tiles, one for each of three programs; 120 are eight; one has no parts.
    num_parts = 0 if splits == 1 else (3 + 8) * num_heads
    part_bytes = num_parts * (head_size + 1) * 4
    assert moved.requested("parts.store") == moved.requested("parts.load") == part_bytes
    ideal = 2 * read + query.nbytes + out.nbytes + 2 * part_bytes
    assert moved.total_distinct() <= 1.05 * ideal
    # An id is read by each head, and once for all keys of a tile that lie in its page.
    step = min(page_size, COLUMNS)
    num_ids = num_kv_heads * sum(-(-length // step) for length in pages.lengths)
    assert moved.requested("tables.load") == num_ids * pages.tables.itemsize


@pytest.mark.fast
@pytest.mark.parametrize("heads", [(32, 32), (40, 8), (2, 1)], ids=str)
def test_there_is_scratch_for_every_number_of_rows(heads: tuple[int, int]) -> None:
    num_heads, num_kv_heads = heads
    sizes = [scratch_sizes(rows, num_heads, num_kv_heads, 128, 90) for rows in range(1, 300)]
    assert sizes == sorted(sizes)
    for rows, (num_parts, num_arrivals) in enumerate(sizes, 1):
        splits = decode_tile(rows, num_kv_heads, 90).splits
        assert splits == 1 or num_parts >= rows * num_heads * splits * 129
        assert splits == 1 or num_arrivals >= rows * num_kv_heads
    # As many as fill the device, and no more than twice that.
    assert sizes[-1][0] <= 2 * 256 * (num_heads // num_kv_heads) * 129
