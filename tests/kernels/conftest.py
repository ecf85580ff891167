"""What the tests of the kernels share: sizes that are real on a GPU, small in the interpreter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from skipserve_kernels.fused.input_projection.inputs import Sizes

# All ways in which kernels and the model take memory that holds what others left there.
UNWRITTEN = ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty"))


@pytest.fixture(autouse=True)
def _unwritten_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what no kernel has written show in each result that it gets into."""
    for owner, name in UNWRITTEN:
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))


def _poisoned(take: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def poisoned(*args: Any, **options: Any) -> Tensor:
        memory = take(*args, **options)
        return memory.fill_(torch.nan) if memory.is_floating_point() else memory

    return poisoned


@pytest.fixture
def block(device: torch.device) -> Sizes:
    """A block of LLaVA-1.5-7B; the interpreter is too slow for it."""
    if device.type == "cuda":
        return Sizes(hidden=4096, heads=32, kv_heads=32, head=128, ffn=11008)
    return Sizes(hidden=64, heads=4, kv_heads=4, head=16, ffn=96)


@pytest.fixture
def row_counts(device: torch.device) -> list[int]:
    """Rows of forwards that decode, and of forwards that prefill."""
    return [1, 2, 4, 8, 16, 32, 64, 640, 2048] if device.type == "cuda" else [2, 70]
