"""How much memory this process can still have on its host, as the kernel counts it."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Where the kernel does not say what is available: this part of all there is.
_SHARE_OF_ALL = 0.5


@dataclass(frozen=True)
class _Groups:
    """Where a version of control groups says what a group may use, and uses.

    Attributes:
        controller: in the line of /proc/self/cgroup that names the process's group.
        root: the folder of the outermost group; inside a container that is its own.
        limits: files with a number of bytes, or with a word where there is no limit.
        usage: the file with what is in use, the file cache included.
        inactive: the line of memory.stat with the file cache that is given up first.
    """

    controller: str
    root: str
    limits: tuple[str, ...]
    usage: str
    inactive: str


_VERSIONS = (
    _Groups("", "sys/fs/cgroup", ("memory.max", "memory.high"), "memory.current", "inactive_file"),
    _Groups(
        controller="memory",
        root="sys/fs/cgroup/memory",
        limits=("memory.limit_in_bytes",),
        usage="memory.usage_in_bytes",
        inactive="total_inactive_file",
    ),
)


def available_bytes(root: Path = Path("/")) -> int:
    """Return what the process can have before the machine, or a control group, runs out.

    Memory that holds copies of files counts as available: the kernel gives it up on demand.

    Args:
        root: the folder that holds `proc` and `sys`.
    """
    left = [_left(folder, groups) for groups in _VERSIONS for folder in _folders(root, groups)]
    return max(min([_machine_bytes(root), *(number for number in left if number is not None)]), 0)


def _machine_bytes(root: Path) -> int:
    """Return what the kernel says is available on the whole machine."""
    with contextlib.suppress(OSError, KeyError, ValueError, IndexError):
        return 1024 * int(_table(root / "proc/meminfo")["MemAvailable"])
    return int(_SHARE_OF_ALL * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _folders(root: Path, groups: _Groups) -> Iterator[Path]:
    """Yield the folders of the process's group and of those around it; some may not exist."""
    top = root / groups.root
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if groups.controller in controllers.split(","):
                own = top.joinpath(*(part for part in Path(path).parts if part not in {"/", ".."}))
                yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))
                return
    yield top


def _left(folder: Path, groups: _Groups) -> int | None:
    """Return what a group has left; None without a limit."""
    limits = [number for name in groups.limits if (number := _number(folder / name)) is not None]
    used = _number(folder / groups.usage)
    if not limits or used is None:
        return None
    with contextlib.suppress(OSError, KeyError, ValueError):
        used -= int(_table(folder / "memory.stat")[groups.inactive])
    return min(limits) - used


def _number(file: Path) -> int | None:
    """Return the number of a file; None where it is missing or holds a word."""
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _table(file: Path) -> dict[str, str]:
    """Return the first words of a file's lines, each with the word behind it."""
    words = [line.split()[:2] for line in file.read_text().splitlines()]
    return {pair[0].removesuffix(":"): pair[1] for pair in words if len(pair) == 2}
