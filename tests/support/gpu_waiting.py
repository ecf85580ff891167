"""A GPU that tells when the host would wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def no_waiting_on(device: torch.device) -> Iterator[None]:
    """Have a GPU itself raise RuntimeError where the host would wait; skip a test of a CPU."""
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
