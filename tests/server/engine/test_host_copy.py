"""Tensors on their way to the host."""

import pytest
import torch

from skipserve.engine.host_copy import HostCopy

pytestmark = pytest.mark.fast


def test_on_the_cpu_nothing_is_copied() -> None:
    x = torch.arange(3)
    (copy,) = HostCopy(x).wait()
    assert copy is x


def test_from_a_device(gpu: torch.device) -> None:
    x, y = torch.arange(3, device=gpu), torch.ones(2, 2, device=gpu)
    copies = HostCopy(x, y)
    x.zero_()
    assert [copy.tolist() for copy in copies.wait()] == [[0, 1, 2], [[1.0, 1.0], [1.0, 1.0]]]
