"""What the tests of the kernels share: sizes that are real on a GPU, small in the interpreter."""

import pytest
import torch

from skipserve_kernels.fused.input_projection.inputs import Sizes


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
