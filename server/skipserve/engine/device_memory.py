"""How a device says that its memory is full: libraries have errors of their own for it."""

import torch

_WORDS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that an allocation failed, and nothing worse."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(word in str(error) for word in _WORDS)
