"""The one table of tile sizes, by kernel, architecture and rows. Nothing is tuned at run time.

The sizes come from published sweeps on Hopper and from what compiles without spills; a measurement
on the device is to replace them.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

import torch


class Kernel(StrEnum):
    """The kernels that have tiles."""

    INPUT_PROJECTION = "input_projection"
    OUTPUT_PROJECTION = "output_projection"
    PAGED_DECODE = "paged_decode"
    PAGED_PREFILL = "paged_prefill"
    PAGED_SCORES = "paged_scores"


@dataclass(frozen=True, slots=True)
class Tile:
    """What one program computes, and how.

    Attributes:
        rows: of the output.
        columns: of the output; of attention, keys that are read at once.
        depth: of the inner dimension at once, for 16-bit numbers; unused by attention.
        num_warps: of 32 threads.
        num_stages: loads under way.
        splits: programs that share one output.
    """

    rows: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int
    splits: int = 1


# Up to so many rows the product is bound by reading weights, and ours are as fast as the library's
# and save its extra passes. Beyond, the library computes it.
MAX_FUSED_ROWS = 64

# Programs that keep a device of about 130 multiprocessors busy.
_FILLING_PROGRAMS = 256
_MAX_DECODE_SPLITS = 8

TILES: dict[tuple[int, Kernel, int], Tile] = {
    (80, Kernel.INPUT_PROJECTION, 16): Tile(16, 32, 128, 4, 4),
    (80, Kernel.INPUT_PROJECTION, 32): Tile(32, 32, 128, 4, 4),
    (80, Kernel.INPUT_PROJECTION, 64): Tile(64, 64, 64, 4, 4),
    (90, Kernel.INPUT_PROJECTION, 16): Tile(16, 32, 128, 4, 4),
    (90, Kernel.INPUT_PROJECTION, 32): Tile(32, 32, 128, 4, 5),
    (90, Kernel.INPUT_PROJECTION, 64): Tile(64, 64, 64, 4, 5),
    (80, Kernel.OUTPUT_PROJECTION, 16): Tile(16, 32, 128, 4, 4, splits=2),
    (80, Kernel.OUTPUT_PROJECTION, 32): Tile(32, 32, 128, 4, 4, splits=2),
    (80, Kernel.OUTPUT_PROJECTION, 64): Tile(64, 64, 64, 4, 4, splits=4),
    (90, Kernel.OUTPUT_PROJECTION, 16): Tile(16, 32, 128, 4, 4, splits=2),
    (90, Kernel.OUTPUT_PROJECTION, 32): Tile(32, 32, 128, 4, 5, splits=2),
    (90, Kernel.OUTPUT_PROJECTION, 64): Tile(64, 64, 64, 4, 5, splits=4),
    (80, Kernel.PAGED_DECODE, 64): Tile(1, 64, 0, 4, 3),
    (90, Kernel.PAGED_DECODE, 64): Tile(1, 64, 0, 4, 3),
    (80, Kernel.PAGED_PREFILL, 64): Tile(128, 32, 0, 8, 3),
    (90, Kernel.PAGED_PREFILL, 64): Tile(128, 64, 0, 8, 3),
    (80, Kernel.PAGED_SCORES, 64): Tile(1, 64, 0, 4, 2),
    (90, Kernel.PAGED_SCORES, 64): Tile(1, 64, 0, 4, 2),
}

ROW_BUCKETS = (16, 32, 64)


def architecture(device: torch.device) -> int:
    """Return the newest architecture of the table that a device can run, as 10 major + minor.

    The interpreter, which runs on the CPU, takes the newest.
    """
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 90 if 10 * major + minor >= 90 else 80


def projection_tile(kernel: Kernel, num_rows: int, dtype: torch.dtype, arch: int) -> Tile | None:
    """Return the tile of a projection; None where the library's product is the faster one."""
    if num_rows > MAX_FUSED_ROWS:
        return None
    bucket = next(bucket for bucket in ROW_BUCKETS if num_rows <= bucket)
    tile = TILES[arch, kernel, bucket]
    return replace(tile, depth=tile.depth * 2 // dtype.itemsize)


def decode_tile(num_rows: int, num_kv_heads: int, arch: int) -> Tile:
    """Return the tile of decode attention, with as many splits as fill the device."""
    splits = 1
    num_programs = num_rows * num_kv_heads
    if num_rows <= MAX_FUSED_ROWS:
        while splits < _MAX_DECODE_SPLITS and num_programs * splits < _FILLING_PROGRAMS:
            splits *= 2
    return replace(TILES[arch, Kernel.PAGED_DECODE, 64], splits=splits)


def prefill_tile(dtype: torch.dtype, arch: int) -> Tile:
    """Return the tile of prefill attention.

    Of float32, which the tensor cores do not multiply, a thread holds whole operands: small ones.
    """
    tile = TILES[arch, Kernel.PAGED_PREFILL, 64]
    return tile if dtype.itemsize == 2 else replace(tile, rows=32, columns=16, num_stages=1)


def scores_tile(arch: int) -> Tile:
    """Return the tile in which one row a sequence scores its keys."""
    return TILES[arch, Kernel.PAGED_SCORES, 64]
