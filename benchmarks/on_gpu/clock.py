"""Times what a device does, without what the host does to tell it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from timing import median_in_turns

from skipserve.engine.stopwatch import Stopwatch

# One thing to do; several are done one after the other, each on memory of its own.
Work = Callable[[], object]

# A measured stretch holds at least so many launches, so that its begin and end do not show.
_MIN_LAUNCHES = 32


def device_seconds(
    contenders: Mapping[str, Sequence[Work]], device: torch.device, repeats: int
) -> dict[str, float]:
    """Return the median seconds of one work of each contender; they take turns.

    On a GPU the works of a contender run as one captured graph, so they must neither wait nor be
    told anything new; on a CPU they are called.
    """
    measures = {}
    for name, works in contenders.items():
        num_rounds = -(-_MIN_LAUNCHES // len(works)) if device.type == "cuda" else 1
        replay = _captured(list(works) * num_rounds, device)
        measures[name] = partial(_seconds_each, replay, num_rounds * len(works), device)
    return median_in_turns(measures, repeats)


def launch_seconds(
    contenders: Mapping[str, Work], device: torch.device, repeats: int, num_launches: int
) -> dict[str, float]:
    """Return the median seconds of one work of each contender, of several told in a row."""
    measures = {
        name: partial(_seconds_each, _in_a_row([work] * num_launches), num_launches, device)
        for name, work in contenders.items()
    }
    return median_in_turns(measures, repeats)


def _seconds_each(work: Work, num_parts: int, device: torch.device) -> float:
    return time_once(work, device) / num_parts


def time_once(work: Work, device: torch.device) -> float:
    """Return the seconds from when the device begins some work to when it ends."""
    stopwatch = Stopwatch(device)
    stopwatch.start()
    work()
    stopwatch.stop()
    return stopwatch.seconds()


def _in_a_row(works: Sequence[Work]) -> Work:
    def run_all() -> None:
        for work in works:
            work()

    return run_all


def _captured(works: Sequence[Work], device: torch.device) -> Work:
    run_all = _in_a_row(works)
    if device.type != "cuda":
        return run_all
    # What runs for the first time may allocate and compile, which a capture does not allow.
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        run_all()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run_all()
    return graph.replay
