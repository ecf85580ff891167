"""In what type of numbers a model computes."""

import torch

from skipserve_kernels.plain.linear import int8

# 16-bit products of small models cost more in calls than in work: a call of oneDNN costs about
# 10 us more than one of MKL, and slows down what runs around it. A decoder layer of hidden size
# 128 takes 0.12 ms with float32 weights as they are, 0.26 ms with reordered bf16 ones.
_LARGEST_WIDENED_HIDDEN_SIZE = 256


def makes_products_in_8_bits() -> bool:
    """Return whether this machine's CPU makes products of 8 bits without loss."""
    return int8.is_exact()


def arithmetic_dtype(device: torch.device, dtype: torch.dtype, hidden_size: int) -> torch.dtype:
    """Return the type in which a model with weights of a type computes fastest on a device."""
    is_widened = device.type == "cpu" and hidden_size <= _LARGEST_WIDENED_HIDDEN_SIZE
    return torch.float32 if is_widened else dtype
