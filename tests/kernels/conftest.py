"""What kernel tests share: memory that shows when it was not written."""

from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def _unwritten_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `torch.empty` and `torch.empty_like` give with NaN."""
    for name in ("empty", "empty_like"):
        real = getattr(torch, name)

        def poisoned(*args: Any, real: Any = real, **kwargs: Any) -> torch.Tensor:
            memory: torch.Tensor = real(*args, **kwargs)
            return memory.fill_(torch.nan) if memory.is_floating_point() else memory

        monkeypatch.setattr(torch, name, poisoned)
