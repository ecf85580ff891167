"""Time that a device takes."""

import pytest
import torch
from gpu_waiting import no_waiting_for_gpu

from skipserve.engine.stopwatch import Stopwatch

pytestmark = pytest.mark.fast


def test_the_time_between_start_and_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 90.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    stopwatch = Stopwatch(torch.device("cpu"))
    stopwatch.start()
    stopwatch.stop()
    assert stopwatch.seconds() == stopwatch.seconds() == 2.5


def test_on_a_gpu_the_host_does_not_wait_before_it_reads(gpu: torch.device) -> None:
    x = torch.randn(4096, 4096, device=gpu)
    x @ x
    stopwatch = Stopwatch(x.device)
    with no_waiting_for_gpu():
        stopwatch.start()
        for _ in range(20):
            x @ x
        stopwatch.stop()
    assert 1e-4 < stopwatch.seconds() < 60
