"""Where the time of a step goes: to the host that tells it, to each kernel, or between them."""

import time
from collections.abc import Callable
from functools import partial

import torch
from on_gpu.bench import Bench, Rows
from on_gpu.clock import launch_seconds
from report import Row
from torch.profiler import ProfilerActivity, profile

from skipserve.engine.scheduler import Step

# The rest of a step's kernels are one row.
_NUM_NAMED = 8


def measure_profile(bench: Bench) -> Rows:
    """Take apart decode steps of few and of many rows, and a prompt."""
    amount, full = bench.amount, bench.plan("full")
    for batch in sorted({min(amount.batches), bench.most}):
        with bench.steps([full] * batch, amount.context) as steps:
            yield from _take_apart(bench, f"decode at {batch}", steps.decode)
    with bench.steps([full], amount.context) as steps:
        yield from _take_apart(bench, f"prompt of {amount.context - 1}", steps.prefill)


def _take_apart(bench: Bench, name: str, step: Step) -> Rows:
    launch = partial(bench.runner.launch, step)
    count = bench.amount.num_launches
    taken = launch_seconds({"step": launch}, bench.device, bench.amount.repeats, count)["step"]
    yield Row(f"{name}/step", 1e6 * taken, "us")
    yield Row(f"{name}/host, to tell it", 1e6 * _host_seconds(bench, launch, count), "us")
    by_kernel = _kernel_seconds(bench, launch, count)
    largest = sorted(by_kernel, key=by_kernel.__getitem__, reverse=True)
    for kernel in largest[:_NUM_NAMED]:
        yield Row(f"{name}/{kernel[:60]}", 1e6 * by_kernel[kernel], "us")
    others = sum(by_kernel[kernel] for kernel in largest[_NUM_NAMED:])
    yield Row(f"{name}/other kernels", 1e6 * others, "us")
    # Launches that overlap make it negative.
    yield Row(f"{name}/between kernels", 1e6 * (taken - sum(by_kernel.values())), "us")


def _host_seconds(bench: Bench, launch: Callable[[], object], count: int) -> float:
    """Return what the host takes to tell a step, when it waits for nothing."""
    _wait(bench)
    start = time.perf_counter()
    for _ in range(count):
        launch()
    seconds = (time.perf_counter() - start) / count
    _wait(bench)
    return seconds


def _kernel_seconds(bench: Bench, launch: Callable[[], object], count: int) -> dict[str, float]:
    """Return the seconds of each kernel, or on a CPU of each operation, in one step."""
    is_gpu = bench.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if is_gpu else ProfilerActivity.CPU]) as found:
        for _ in range(count):
            launch()
        _wait(bench)
    field = "self_device_time_total" if is_gpu else "self_cpu_time_total"
    times = {event.key: getattr(event, field) / 1e6 / count for event in found.key_averages()}
    return {key: seconds for key, seconds in times.items() if seconds > 0}


def _wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)
