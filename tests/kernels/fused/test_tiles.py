"""The table of tiles: complete, and made of sizes that a device can hold."""

import pytest
import torch

from skipserve_kernels.fused import tiles
from skipserve_kernels.fused.tiles import (
    MAX_FUSED_ROWS,
    ROW_BUCKETS,
    TILES,
    Kernel,
    Tile,
    architecture,
    decode_tile,
    prefill_tile,
    projection_tile,
)

pytestmark = [pytest.mark.kernels, pytest.mark.fast]

ARCHITECTURES = (80, 90)
PROJECTIONS = (Kernel.INPUT_PROJECTION, Kernel.OUTPUT_PROJECTION)

# Shared memory that one program may have, in bytes.
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
LARGEST_HEAD = 128


def is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def shared_memory(kernel: Kernel, tile: Tile) -> int:
    """Return about how many bytes the inputs of a tile take that are loaded ahead."""
    if kernel in PROJECTIONS:
        return 2 * (tile.rows + tile.columns) * tile.depth * (tile.num_stages - 1)
    keys_and_values = 2 * tile.columns * LARGEST_HEAD * (tile.num_stages - 1)
    return 2 * (tile.rows * LARGEST_HEAD + keys_and_values)


def test_every_architecture_has_every_tile() -> None:
    expected = {
        (arch, kernel, rows)
        for kernel in PROJECTIONS
        for rows in ROW_BUCKETS
        for arch in ARCHITECTURES
    }
    attention = (Kernel.PAGED_DECODE, Kernel.PAGED_PREFILL, Kernel.PAGED_SCORES)
    expected |= {(arch, kernel, 64) for kernel in attention for arch in ARCHITECTURES}
    assert TILES.keys() == expected
    assert {kernel for _, kernel, _ in TILES} == set(Kernel)
    assert ROW_BUCKETS[-1] == MAX_FUSED_ROWS


@pytest.mark.parametrize(("place", "tile"), TILES.items(), ids=str)
def test_tile_fits(place: tuple[int, Kernel, int], tile: Tile) -> None:
    arch, kernel, rows = place
    sizes = (tile.rows, tile.columns, tile.num_warps, tile.splits)
    assert all(is_power_of_two(size) for size in sizes)
    assert tile.columns >= 16
    assert tile.num_stages >= 2
    assert shared_memory(kernel, tile) <= SHARED_MEMORY[arch]
    if kernel in PROJECTIONS:
        assert tile.rows == rows, "rows above the bucket's would read the weights again"
        assert is_power_of_two(tile.depth)
        assert tile.depth >= 32, "a float32 tile has half of it, and a product needs 16"


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kernel", PROJECTIONS)
def test_projection_takes_the_smallest_tile_that_holds_the_rows(kernel: Kernel, arch: int) -> None:
    for num_rows in range(1, MAX_FUSED_ROWS + 1):
        tile = projection_tile(kernel, num_rows, torch.bfloat16, arch)
        assert tile is not None
        assert tile == TILES[arch, kernel, min(b for b in ROW_BUCKETS if b >= num_rows)]


@pytest.mark.parametrize("kernel", PROJECTIONS)
def test_library_computes_many_rows(kernel: Kernel) -> None:
    assert projection_tile(kernel, MAX_FUSED_ROWS + 1, torch.bfloat16, 90) is None
    assert projection_tile(kernel, 5000, torch.float32, 80) is None


@pytest.mark.parametrize("kernel", PROJECTIONS)
def test_wide_numbers_halve_the_depth(kernel: Kernel) -> None:
    narrow = projection_tile(kernel, 16, torch.float16, 90)
    wide = projection_tile(kernel, 16, torch.float32, 90)
    assert narrow is not None
    assert wide is not None
    assert wide.depth * 2 == narrow.depth
    assert (wide.rows, wide.columns, wide.splits) == (narrow.rows, narrow.columns, narrow.splits)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("num_kv_heads", [1, 4, 8, 32, 40])
def test_decode_splits_fill_the_device(num_kv_heads: int, arch: int) -> None:
    splits = [decode_tile(rows, num_kv_heads, arch).splits for rows in range(1, 257)]
    assert all(is_power_of_two(split) for split in splits)
    assert splits == sorted(splits, reverse=True), "more rows need no more splits"
    assert splits[-1] == 1
    for rows, split in enumerate(splits, start=1):
        programs = rows * num_kv_heads * split
        fills = programs >= tiles._FILLING_PROGRAMS
        # Many rows are many programs, and scratch memory has no room for their parts.
        is_whole = split == 1 and rows > MAX_FUSED_ROWS
        assert fills or is_whole or split == tiles._MAX_DECODE_SPLITS
        assert split == 1 or programs < 2 * tiles._FILLING_PROGRAMS, "half of them would do"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_prefill_of_wide_numbers_is_smaller(arch: int) -> None:
    narrow, wide = (prefill_tile(dtype, arch) for dtype in (torch.bfloat16, torch.float32))
    assert narrow == TILES[arch, Kernel.PAGED_PREFILL, 64]
    assert wide.rows < narrow.rows
    assert 2 * shared_memory(Kernel.PAGED_PREFILL, wide) <= SHARED_MEMORY[arch]


@pytest.mark.parametrize(
    ("capability", "arch"), [((8, 0), 80), ((8, 9), 80), ((9, 0), 90), ((10, 0), 90), ((12, 0), 90)]
)
def test_device_takes_the_newest_tiles_that_it_can_run(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], arch: int
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert architecture(torch.device("cuda", 0)) == arch


def test_interpreter_takes_the_newest_tiles() -> None:
    assert architecture(torch.device("cpu")) == 90
