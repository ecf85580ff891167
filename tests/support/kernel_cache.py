"""Fills a folder with the compiled kernels of a run on a GPU; as a script, without a GPU.

It takes the folder and architectures: `kernel_cache.py dist/triton-cache 80 90`.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from meta_device import META, MetaWeights
from on_gpu.bench import Bench
from on_gpu.choices import TRIED, launch_with, swept_races
from on_gpu.kernels import RACES, setting_of
from triton_compile import Recorder

from skipserve.model.llava import Llava

_MODEL = "7b"
_PAGE_SIZE = 16


def fill(folder: Path, architectures: list[int]) -> int:
    """Compile for each architecture in a process of its own; return how many entries there are."""
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(folder.resolve()),
        "TRITON_STORE_BINARY_ONLY": "1",
    }
    processes = [
        subprocess.Popen([sys.executable, __file__, str(arch)], env=environment)
        for arch in architectures
    ]
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise SystemExit("a kernel could not be compiled: see above")
    return len(list(folder.iterdir()))


def compile_all(arch: int) -> None:
    """Launch all that a run does, on tensors without memory, so that it is compiled alone."""
    Recorder(arch, lambda _: None)
    with torch.inference_mode():
        for launch in launches(Bench(META, _MODEL)):
            launch()


def launches(bench: Bench) -> Iterator[Callable[[], object]]:
    """Yield what starts a model, each kernel that is timed, and each with other tiles."""
    model = Llava.assemble(bench.config, MetaWeights(bench.dtype), uses_triton=True)
    yield partial(model.warm_up, model.new_cache(bench.most, _PAGE_SIZE))
    for races in RACES.values():
        for race in races(setting_of(bench)):
            yield race.ours[0]
    for key, race in swept_races(bench):
        for tile in TRIED[key[1:]]:
            yield partial(launch_with, key, tile, race.ours[0])


if __name__ == "__main__":
    if len(sys.argv) == 2:
        compile_all(int(sys.argv[1]))
    else:
        place, *names = sys.argv[1:]
        print(fill(Path(place), [int(name) for name in names]), "entries")  # noqa: T201
