"""Times a small picture in a process of the pool and in a thread, in turns; weighs the process."""

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from options import Output
from PIL import Image
from report import RESULTS, Row, show, write
from timing import track

from skipserve.app import pool_spec
from skipserve.media.data_uri import EncodedImage
from skipserve.media.decode import decode_image
from skipserve.media.fitting import Fitting
from skipserve.media.kinds import Pictures
from skipserve.media.pool import PicturePool
from skipserve.settings import Settings

# Milliseconds that the median of a small picture may take more than in a thread.
TARGET = 2.0

# As LLaVA-1.5 takes them.
SIDE = 336
FITTING = Fitting(SIDE, (122, 116, 104), {"shortest_edge": SIDE}, 3, True, 40_000_000)

NUM_WARM_UP = 20


def main(
    pictures: Annotated[int, typer.Option(min=1, help="Timed pictures of each kind.")] = 500,
    output: Output = RESULTS / "small_pictures.json",
) -> None:
    """Compare the median times of a small JPEG, and show what memory a process takes."""
    rows = asyncio.run(_measure(pictures))
    show(rows)
    write("small_pictures", rows, sys.argv[1:], output)


async def _measure(count: int) -> list[Row]:
    image = _small_jpeg()
    pool = PicturePool(pool_spec(Settings(), Pictures(FITTING)))

    async def in_process() -> None:
        await pool.fit([image], "benchmark")

    async def in_thread() -> None:
        await asyncio.to_thread(lambda: FITTING.fit(decode_image(image, 10**6), ""))

    kinds = {"process": in_process, "thread": in_thread}
    await pool.start()
    try:
        times = await _in_turns(kinds, count)
        memory = [_memory_mib(process_id) for process_id in pool.process_ids]
    finally:
        await pool.close()
    p50s = {kind: float(np.median(milliseconds)) for kind, milliseconds in times.items()}
    added = p50s["process"] - p50s["thread"]
    return [
        *(Row(f"small picture/in a {kind}/p50", p50, "ms") for kind, p50 in p50s.items()),
        Row("small picture/added/p50", added, "ms", TARGET, is_limit=True),
        *(Row(f"process/{name}", mib, "MiB") for name, mib in memory[0].items()),
    ]


async def _in_turns(
    kinds: Mapping[str, Callable[[], Awaitable[None]]], count: int
) -> dict[str, list[float]]:
    """Return the milliseconds of each kind, after a few that do not count."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in track(count + NUM_WARM_UP, "pictures"):
        for kind, work in kinds.items():
            start = perf_counter()
            await work()
            if number >= NUM_WARM_UP:
                times[kind].append(1000 * (perf_counter() - start))
    return times


def _small_jpeg() -> EncodedImage:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((SIDE, SIDE)).save(buffer, "JPEG", quality=90)
    return EncodedImage(buffer.getvalue(), "")


def _memory_mib(process_id: int) -> dict[str, float]:
    """Return the memory of a process, all of it and what it shares with no other."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{process_id}/status").read_text().splitlines()
    )
    named = {"resident": "VmRSS", "resident of its own": "RssAnon"}
    return {name: int(fields[field].split()[0]) / 1024 for name, field in named.items()}


if __name__ == "__main__":
    typer.run(main)
