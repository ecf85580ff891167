"""What attention on the CPU asks of torch."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from skipserve_kernels.plain.attention import cpu

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    cpu.can_merge.cache_clear()
    yield
    cpu.can_merge.cache_clear()


def test_this_torch_can_merge() -> None:
    assert cpu.can_merge()


def test_without_the_private_operator_nothing_is_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> cpu.Part:
        raise AttributeError("no such operator")

    monkeypatch.setattr(cpu, "_attend", missing)
    assert not cpu.can_merge()


def test_an_operator_that_means_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attend = cpu._attend

    def in_base_2(query: Tensor, keys: Tensor, values: Tensor) -> cpu.Part:
        mixed, logarithms = attend(query, keys, values)
        return mixed, logarithms / torch.tensor(2.0).log()

    monkeypatch.setattr(cpu, "_attend", in_base_2)
    assert not cpu.can_merge()
