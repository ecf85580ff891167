"""Masks of a bit a weight: what was packed comes back, whatever the width of a row."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from skipserve.pretrained.packed_masks import read_packed, write_packed

pytestmark = pytest.mark.fast


@given(rows=st.integers(1, 9), width=st.integers(1, 33), seed=st.integers(0, 99))
def test_masks_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: int, width: int, seed: int
) -> None:
    mask = torch.rand((rows, width), generator=torch.Generator().manual_seed(seed)) < 0.5
    path = tmp_path_factory.mktemp("masks") / "packed.safetensors"
    write_packed({"a": mask, "b": ~mask}, path)
    found = dict(read_packed(path, {"a": torch.zeros(rows, width), "b": torch.zeros(rows, width)}))
    assert torch.equal(found["a"], mask)
    assert torch.equal(found["b"], ~mask)


def test_a_weight_is_a_bit_and_the_first_is_the_highest(tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    mask = torch.tensor([[True, False, False, False, False, False, False, True, True, False]])
    write_packed({"w": mask}, path)
    assert load_file(path)["w"].tolist() == [[0b1000_0001, 0b1000_0000]]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_mask_of_no_weight_is_an_error(tmp_path: Path) -> None:
    write_packed({"w": torch.ones(1, 8, dtype=torch.bool)}, tmp_path / "packed.safetensors")
    with pytest.raises(KeyError, match="w"):
        dict(read_packed(tmp_path / "packed.safetensors", {}))
