"""What counts as a full device."""

import pytest
import torch

from skipserve.engine.device_memory import is_out_of_memory

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_errors(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
