"""Times what a device does, without what the host does to tell it."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

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
    replays = {}
    for name, works in contenders.items():
        num_rounds = -(-_MIN_LAUNCHES // len(works)) if device.type == "cuda" else 1
        replays[name] = _captured(list(works) * num_rounds, device), num_rounds * len(works)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, (replay, num_works) in replays.items():
            taken = time_once(replay, device) / num_works
            if turn > 0:
                seconds[name].append(taken)
    return {name: median(times) for name, times in seconds.items()}


def launch_seconds(
    contenders: Mapping[str, Work], device: torch.device, repeats: int, num_launches: int
) -> dict[str, float]:
    """Return the median seconds of one work of each contender, of several told in a row."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, work in contenders.items():
            taken = time_once(_in_a_row([work] * num_launches), device) / num_launches
            if turn > 0:
                seconds[name].append(taken)
    return {name: median(times) for name, times in seconds.items()}


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
