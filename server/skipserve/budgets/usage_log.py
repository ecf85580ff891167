"""Usage for billing: a line of JSON a request, written by a thread that nobody waits for."""

import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

logger = logging.getLogger(__name__)
# More wait only where the disk has stopped; each is some hundred bytes.
_MAX_WAITING = 65_536


class UsageLog:
    """Appends to a file. A line that cannot be written stands in the server's log instead.

    Args:
        path: the file; made, for the server's user alone, if it is not there.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()
        # None only wakes the thread.
        self._waiting: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._is_moved = self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="usage log", daemon=True)
        self._thread.start()

    def write(self, record: Mapping[str, object]) -> None:
        """Have a record written soon."""
        line = json.dumps(record)
        if self._is_closing:
            _tell_lost([line], "it is closed")
            return
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            _tell_lost([line], "the disk is too slow")

    def reopen(self) -> None:
        """Have the file opened again before the next line: it may have been moved away."""
        self._is_moved = True
        self._wake()

    def close(self) -> None:
        """Return when all is written; what comes later stands in the server's log."""
        self._is_closing = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)

    def _run(self) -> None:
        while not (self._is_closing and self._waiting.empty()):
            lines = [line for line in self._take() if line is not None]
            if self._is_moved:
                self._is_moved = False
                self._reopen()
            self._append(lines)
        self._file.close()

    def _take(self) -> list[str | None]:
        """Wait for a line, and return it with those that have come meanwhile."""
        taken = [self._waiting.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._waiting.get_nowait())
        return taken

    def _append(self, lines: list[str]) -> None:
        left = "".join(f"{line}\n" for line in lines).encode()
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            _tell_lost(left.decode(errors="replace").splitlines(), str(error))

    def _reopen(self) -> None:
        try:
            file = self._open()
        except OSError as error:
            logger.error("the usage log stays with its old file: %s", error)
            return
        self._file.close()
        self._file = file

    def _open(self) -> FileIO:
        return FileIO(self._path, "a", opener=lambda path, flags: os.open(path, flags, 0o600))


def _tell_lost(lines: list[str], reason: str) -> None:
    for line in lines:
        logger.error("not in the usage log, for %s: %s", reason, line)
