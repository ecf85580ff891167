"""What a process and its children cost, as the system counts it: no clock on the wall."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_SECONDS = 0.01


def process_ids(root: int) -> list[int]:
    """Return a process and all that it has started, down to the last."""
    found = [root]
    for process_id in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process_id}/task").iterdir():
                found.extend(map(int, (task / "children").read_text().split()))
    return found


def resident_bytes(root: int) -> int:
    """Return the memory of a process and its children, what they share counted for each."""
    return sum(map(_resident_bytes, process_ids(root)))


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and its children, those that have ended among them."""
    return sum(map(_cpu_seconds, process_ids(root)))


@contextlib.contextmanager
def watched_memory(root: int) -> Iterator[list[int]]:
    """Yield a list that holds, when the context is left, the most memory that was seen at once."""
    most, is_over = [resident_bytes(root)], threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            most[0] = max(most[0], resident_bytes(root))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        is_over.set()
        watcher.join()


def _resident_bytes(process_id: int) -> int:
    with contextlib.suppress(OSError):
        pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _cpu_seconds(process_id: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0
