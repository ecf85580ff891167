"""Measures work of a device that the host does not wait for."""

import time

import torch


class Stopwatch:
    """Takes the time between two points of what a device is told to do.

    Args:
        device: a CPU works while it is told; of a GPU the current stream is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = self._end = 0.0
        self._events: tuple[torch.cuda.Event, ...] = ()
        if device.type == "cuda":
            self._events = _new_event(), _new_event()

    def start(self) -> None:
        """Begin with what is launched next."""
        self._begin = self._mark(0)

    def stop(self) -> None:
        """End with what was launched last."""
        self._end = self._mark(1)

    def seconds(self) -> float:
        """Return what lay between; this waits for the device to get there."""
        if not self._events:
            return self._end - self._begin
        begin, end = self._events
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    def _mark(self, place: int) -> float:
        if self._events:
            self._events[place].record(torch.cuda.current_stream(self._device))
        return time.perf_counter()


def _new_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
