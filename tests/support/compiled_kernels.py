"""Compiles what the launchers of the kernels launch; as a script, in a process of its own.

It takes an architecture and words, and writes the binaries, as JSON, that the launches need whose
names contain one of the words.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from children import running
from cubin import Cubin, read_cubin
from kernel_launches import (
    DEMO,
    GROUPED,
    LLAVA_7B,
    LLAVA_13B,
    WIDE_7B,
    other_launches,
    typical_launches,
)
from pydantic import TypeAdapter
from triton_compile import Launch, Recorder

from skipserve_kernels.fused import tiles
from skipserve_kernels.fused.tiles import Kernel, Tile


@dataclass(frozen=True, slots=True)
class Binary:
    """A compiled kernel.

    Attributes:
        launch: the first launch that needs it.
        kernel: its function's name.
        arch: that it is for.
        place: of the tile that was looked up for it, if any.
        shared_memory: that a program needs, in bytes.
        cubin: what it consists of.
    """

    launch: str
    kernel: str
    arch: int
    place: tuple[int, Kernel, int] | None
    shared_memory: int
    cubin: Cubin

    def __str__(self) -> str:
        """Name it so that it can be found."""
        tile = f"TILES[{', '.join(map(str, self.place))}]" if self.place else "no tile"
        return f"sm_{self.arch} {self.kernel} for {self.launch!r}, {tile}"


_BINARIES = TypeAdapter(list[Binary])


def compile_launches(words: list[str], architectures: list[int], cache: Path) -> list[Binary]:
    """Compile what some launches need, each architecture in its own process.

    Args:
        words: launches are meant whose name has one of them.
        architectures: to compile for.
        cache: the folder for binaries; those that are there already are not compiled again.
    """
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                running(
                    [sys.executable, __file__, str(arch), *words],
                    env=environment,
                    stdout=subprocess.PIPE,
                )
            )
            for arch in architectures
        ]
        outputs = [process.communicate()[0] for process in processes]
    failed = [process.args for process in processes if process.returncode]
    assert not failed, f"{failed} failed; standard error tells why"
    return [binary for output in outputs for binary in _BINARIES.validate_json(output)]


class _Lookups(dict[tuple[int, Kernel, int], Tile]):
    """The table of tiles, which notes where it was last looked up."""

    last: tuple[int, Kernel, int] | None = None

    def __getitem__(self, place: tuple[int, Kernel, int]) -> Tile:
        self.last = place
        return super().__getitem__(place)


def _all_launches() -> dict[str, Callable[[], None]]:
    """Return all launches by name: of one model all forms, of others the typical ones.

    Grouped heads and float32 are another matter for attention only.
    """
    found = {f"7b {name}": run for name, run in other_launches(LLAVA_7B).items()}
    for model, sizes in {"7b": LLAVA_7B, "13b": LLAVA_13B, "demo": DEMO}.items():
        found |= {f"{model} {name}": run for name, run in typical_launches(sizes).items()}
    for model, sizes in {"grouped": GROUPED, "wide": WIDE_7B}.items():
        launches = typical_launches(sizes)
        attention = (name for name in launches if name.startswith(("decode", "prefill", "scores")))
        found |= {f"{model} {name}": launches[name] for name in attention}
    return found


def _compile(arch: int, words: list[str]) -> list[Binary]:
    """Compile what some launches need, each binary once."""
    lookups = _Lookups(tiles.TILES)
    tiles.TILES = lookups
    found: dict[str, Binary] = {}

    def add(launch: Launch) -> None:
        place, lookups.last = lookups.last, None
        binary = launch.binary
        if binary.hash not in found:
            found[binary.hash] = Binary(
                launch=name,
                kernel=launch.name,
                arch=arch,
                place=place,
                shared_memory=binary.metadata.shared,
                cubin=read_cubin(binary.asm["cubin"]),
            )

    Recorder(arch, add)
    for name, run in _all_launches().items():
        if any(word in name for word in words):
            lookups.last = None
            run()
    return list(found.values())


if __name__ == "__main__":
    sys.stdout.buffer.write(_BINARIES.dump_json(_compile(int(sys.argv[1]), sys.argv[2:])))
