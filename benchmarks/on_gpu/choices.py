"""What else could have been chosen: tiles, rows of a step, and a graph of the vision tower."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from contenders import OurEngine
from on_gpu.bench import Bench, Rows
from on_gpu.clock import Work, device_seconds, launch_seconds
from on_gpu.kernels import RACES, Race, setting_of
from questions import QuestionSource
from report import Row
from timing import time_set

from skipserve_kernels.fused.tiles import ROW_BUCKETS, TILES, Kernel, Tile, architecture

# Beside the table's own, by kernel and bucket of rows; attention has one bucket.
TRIED: dict[tuple[Kernel, int], tuple[Tile, ...]] = {
    (Kernel.INPUT_PROJECTION, 16): (
        Tile(16, 32, 128, 4, 6),
        Tile(16, 64, 128, 4, 4),
        Tile(16, 128, 64, 4, 5),
    ),
    (Kernel.INPUT_PROJECTION, 32): (Tile(32, 64, 128, 4, 4), Tile(32, 128, 64, 4, 5)),
    (Kernel.INPUT_PROJECTION, 64): (Tile(64, 32, 128, 4, 4), Tile(64, 128, 64, 4, 4)),
    (Kernel.OUTPUT_PROJECTION, 16): (
        Tile(16, 32, 128, 4, 4, splits=4),
        Tile(16, 32, 128, 4, 6, splits=2),
        Tile(16, 64, 128, 4, 4, splits=4),
    ),
    (Kernel.OUTPUT_PROJECTION, 32): (
        Tile(32, 32, 128, 4, 4, splits=4),
        Tile(32, 128, 64, 4, 5, splits=8),
    ),
    (Kernel.OUTPUT_PROJECTION, 64): (
        Tile(64, 64, 64, 4, 5, splits=2),
        Tile(64, 128, 64, 4, 4, splits=8),
    ),
    (Kernel.PAGED_DECODE, 64): (Tile(1, 64, 0, 4, 5), Tile(1, 32, 0, 4, 5)),
    (Kernel.PAGED_PREFILL, 64): (Tile(128, 64, 0, 8, 5), Tile(128, 32, 0, 8, 3)),
    (Kernel.PAGED_SCORES, 64): (Tile(1, 32, 0, 4, 2), Tile(1, 64, 0, 8, 2)),
}

# Of projections, the only operation that is swept: the largest.
_SWEPT = ("all inputs", "all outputs", "decode attention", "prefill attention", "scores")


def measure_choices(bench: Bench) -> Rows:
    """Time tiles beside the table's, steps of more rows, and a captured vision tower."""
    yield from _tiles(bench)
    yield from _row_budgets(bench)
    yield from _tower(bench)


@torch.inference_mode()
def _tiles(bench: Bench) -> Rows:
    if not bench.runs_kernels:
        return
    for key, race in swept_races(bench):
        contenders = {
            _name(tile): [partial(launch_with, key, tile, work) for work in race.ours]
            for tile in (TILES[key], *TRIED[key[1:]])
        }
        seconds = device_seconds(contenders, bench.device, bench.amount.repeats)
        for tile, taken in seconds.items():
            yield Row(f"{race.name}, {race.num_rows} rows/{tile}", 1e6 * taken, "us")


def swept_races(bench: Bench) -> Iterator[tuple[tuple[int, Kernel, int], Race]]:
    """Yield races of one number of rows for each tile, with the tile's key in the table."""
    arch = architecture(bench.device)
    for kernel in Kernel:
        is_projection = kernel in (Kernel.INPUT_PROJECTION, Kernel.OUTPUT_PROJECTION)
        setting = setting_of(bench)
        if is_projection:
            setting = replace(setting, row_counts=ROW_BUCKETS, prefill_counts=())
        for race in RACES[kernel](setting):
            if race.name.startswith(_SWEPT):
                yield (arch, kernel, race.num_rows if is_projection else 64), race


def launch_with(key: tuple[int, Kernel, int], tile: Tile, work: Work) -> None:
    """Launch something with another tile in the table."""
    before = TILES[key]
    TILES[key] = tile
    try:
        work()
    finally:
        TILES[key] = before


def _name(tile: Tile) -> str:
    shape = f"{tile.rows}x{tile.columns}x{tile.depth}"
    return f"{shape}, {tile.num_warps} warps, {tile.num_stages} stages, {tile.splits} splits"


def _row_budgets(bench: Bench) -> Rows:
    """Compare requests a second; there is no room for several engines beside each other."""
    bench.drop("engine")
    bench.drop("runner")
    for max_rows in bench.amount.row_budgets:
        rate = _rate(bench, OurEngine(bench.new_engine((), max_rows), bench.most))
        yield Row(f"{bench.most} at a time/steps of {max_rows} rows", rate, "requests/s")


def _rate(bench: Bench, ours: OurEngine) -> float:
    source, count = QuestionSource(bench.config, seed=9), 2 * bench.most
    times = [
        time_set(ours, bench.questions(count, source)).seconds
        for _ in range(bench.amount.turns + 1)
    ]
    return count / median(times[1:])


@torch.inference_mode()
def _tower(bench: Bench) -> Rows:
    size, amount = bench.config.sizes.vision.image_size, bench.amount
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8, device=bench.device)
    encode = partial(bench.llava.encode_images, pixels)
    told = launch_seconds({"": encode}, bench.device, amount.repeats, amount.num_launches)[""]
    yield Row("picture/told by the host", 1000 * told, "ms")
    captured = device_seconds({"": [encode]}, bench.device, amount.repeats)[""]
    yield Row("picture/as a graph", 1000 * captured, "ms")
