"""A GPU that tells when the host would wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def no_waiting_for_gpu() -> Iterator[None]:
    """Have whatever would make the host wait for the GPU raise RuntimeError instead."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
