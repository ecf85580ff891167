"""Peers that cannot run are left out with a reason."""

from typing import Any

import pytest
import torch
from on_gpu import decode
from on_gpu.bench import Bench
from on_gpu.decode import _duel, _vllm
from questions import QuestionSource

pytestmark = pytest.mark.fast


class Full:
    """A rival without memory."""

    def answer(self, *_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much\nand more")

    def cpu_seconds(self) -> float:
        return 0.0


@pytest.fixture
def bench() -> Bench:
    return Bench(torch.device("cpu"), "tiny")


def test_a_rival_without_memory_is_noted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    rival: Any = Full()
    source = QuestionSource(bench.config, seed=0)
    assert not list(_duel(bench, source, 4, "transformers", rival))
    assert bench.notes == ["transformers at batch 4: CUDA out of memory. Tried to allocate much"]


def test_vllm_is_noted_where_it_is_missing(bench: Bench) -> None:
    assert not list(_vllm(bench))
    assert bench.notes == ["vLLM: No module named 'vllm'"]


def test_vllm_is_timed_where_it_is_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Peer:
        def __init__(self, shape: Any, context: int, dtype: str) -> None:
            assert (context, dtype) == (40, "bfloat16")

        def token_seconds(self, prompts: list[list[int]]) -> float:
            asked.append(len(prompts))
            return 0.005

    monkeypatch.setattr(decode, "Vllm", Peer)
    rows = list(_vllm(bench))
    assert asked == [1, 8]
    assert [row.value for row in rows] == [5.0, 5.0]
