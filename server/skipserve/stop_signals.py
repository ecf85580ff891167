"""SIGTERM and SIGINT, from the first line of a start to the last of an end."""

import asyncio
import signal
from types import FrameType, TracebackType

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Hears the signals that ask a server to stop, while the context lasts.

    Before a loop follows them, the first one ends the process: nothing is lost yet. Not left to
    the system, which lets a container's first process ignore what it does not handle.

    Attributes:
        asked: set by the first signal.
        insisted: set by the second.
    """

    def __init__(self) -> None:
        self.asked, self.insisted = asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_over = False

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._hear) for number in _NUMBERS}
        return self

    def hear_again(self) -> None:
        """Hear the signals again: a library has taken them."""
        for number in _NUMBERS:
            signal.signal(number, self._hear)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # Who is on the way out is not to die of being asked to once more.
            signal.signal(number, signal.SIG_IGN if self._is_over else handler)

    def follow(self) -> None:
        """Set the events in the running loop from now on."""
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        """Take no notice any more: the process is about to end, with an exit code of its own."""
        self._is_over = True

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._is_over:
            return
        if self._loop is None:
            raise SystemExit(0)
        self._loop.call_soon_threadsafe(self._count)

    def _count(self) -> None:
        if self.asked.is_set():
            self.insisted.set()
        self.asked.set()
