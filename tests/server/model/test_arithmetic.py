"""In what type of numbers a model computes."""

import pytest
import torch

from skipserve.model.arithmetic import arithmetic_dtype

pytestmark = pytest.mark.fast


def test_small_models_compute_in_float32_on_the_cpu_alone() -> None:
    bfloat16 = torch.bfloat16
    assert arithmetic_dtype(torch.device("cpu"), bfloat16, 128) is torch.float32
    assert arithmetic_dtype(torch.device("cpu"), bfloat16, 1024) is bfloat16
    assert arithmetic_dtype(torch.device("cuda"), bfloat16, 128) is bfloat16
