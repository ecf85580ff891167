"""Arrays on their way to the device."""

import numpy as np
import pytest
import torch
from gpu_waiting import no_waiting_for_gpu
from meta_device import META, NoWaiting

from skipserve.model.transfer import Numbers, _cut, send, to_device

pytestmark = pytest.mark.fast


def _arrays() -> list[Numbers]:
    return [
        np.arange(3),
        np.array([[0.1, -np.inf], [np.nan, 2.0**60]]),
        np.zeros(0, dtype=np.int64),
        np.arange(12).reshape(3, 4)[:, ::2].T,
        np.array([-1]),
    ]


def test_on_the_cpu_memory_is_shared() -> None:
    arrays = _arrays()
    for array, tensor in zip(arrays, to_device(arrays, torch.device("cpu")), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert np.shares_memory(tensor.numpy(), array) == bool(array.size)


def test_what_travels_together_comes_out_as_it_went_in() -> None:
    arrays = _arrays()
    block = torch.full((16,), 7)
    send(arrays, block)
    assert block[14:].tolist() == [7, 7]
    for array, tensor in zip(arrays, _cut(block[:14], arrays), strict=True):
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_to_another_device_they_go_in_one_copy() -> None:
    arrays = _arrays()
    with NoWaiting():
        tensors = to_device(arrays, META)
    assert len({tensor.untyped_storage()._cdata for tensor in tensors}) == 1
    for array, tensor in zip(arrays, tensors, strict=True):
        assert tensor.shape == array.shape
        assert tensor.dtype == torch.from_numpy(array).dtype


def test_to_a_gpu(gpu: torch.device) -> None:
    """Thousands of blocks that are dropped while they are copied do not overwrite each other."""
    arrays = _arrays()
    with no_waiting_for_gpu():
        many = [to_device([*arrays, np.full(500, i)], gpu) for i in range(2000)]
    for i, tensors in enumerate(many):
        for array, tensor in zip([*arrays, np.full(500, i)], tensors, strict=True):
            np.testing.assert_array_equal(tensor.cpu().numpy(), array)
