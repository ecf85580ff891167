"""Work is timed in turns; on a GPU, whose calls are replaced here, as a captured graph."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from on_gpu import clock
from on_gpu.clock import device_seconds, launch_seconds

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    contenders = {name: [lambda name=name: calls.append(name)] * 2 for name in ("ours", "theirs")}
    seconds = device_seconds(contenders, CPU, repeats=2)
    assert calls == (["ours"] * 2 + ["theirs"] * 2) * 3
    assert all(taken > 0 for taken in seconds.values())


def test_launches_follow_each_other() -> None:
    calls: list[str] = []
    work = {name: lambda name=name: calls.append(name) for name in ("ours", "theirs")}
    launch_seconds(work, CPU, repeats=1, num_launches=3)
    assert calls == (["ours"] * 3 + ["theirs"] * 3) * 2


class Gpu:
    """Stands in for what `clock` asks of torch.cuda; writes down what is done when."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.is_capturing = False

    class Stream:
        """A stream that has nothing to wait for."""

        def __init__(self, *_: Any) -> None:
            pass

        def wait_stream(self, _: Any) -> None:
            pass

    def current_stream(self, _: Any) -> Any:
        return self.Stream()

    def stream(self, _: Any) -> Any:
        return nullcontext()

    def CUDAGraph(self) -> Any:
        return self

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        assert graph is self
        self.is_capturing = True
        yield
        self.is_capturing = False

    def replay(self) -> None:
        self.log.append("replay")

    def work(self) -> None:
        self.log.append("captured" if self.is_capturing else "called")


def test_on_a_gpu_many_launches_are_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    monkeypatch.setattr(torch, "cuda", gpu)
    times: Iterator[float] = iter([9.0, 64.0, 128.0, 192.0])

    def time_once(work: Any, _: Any) -> float:
        work()
        return next(times)

    monkeypatch.setattr(clock, "time_once", time_once)
    seconds = device_seconds({"ours": [gpu.work] * 8}, torch.device("cuda"), repeats=3)
    assert gpu.log == ["called"] * 32 + ["captured"] * 32 + ["replay"] * 4
    assert seconds == {"ours": 4.0}  # 128 seconds of 32 launches
