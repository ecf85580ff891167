"""Files of masks, and what is refused of them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from skipserve_training.compression.mask_files import read_masks, write_masks

pytestmark = pytest.mark.fast

NAME = "language_model.model.layers.0.mlp.up_proj.weight"
SHAPES = {NAME: torch.Size((2, 3)), f"{NAME}.other": torch.Size((1, 1))}


def test_masks_come_back(tmp_path: Path) -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    path = tmp_path / "new" / "masks.safetensors"
    write_masks({NAME: mask}, path)
    assert torch.equal(read_masks(path, SHAPES)[NAME], mask)
    assert [it.name for it in path.parent.iterdir()] == ["masks.safetensors"]


@pytest.mark.parametrize(
    ("name", "mask", "said"),
    [
        ("lm_head.weight", torch.ones(2, 3, dtype=torch.bool), f"expected names such as {NAME}"),
        (NAME, torch.ones(3, 2, dtype=torch.bool), r"is bool of shape \[3, 2\]: .*\[2, 3\]"),
        (NAME, torch.ones(2, 3), r"is float32 of shape \[2, 3\]: expected bool"),
    ],
)
def test_a_mask_that_fits_no_weight_is_named(
    name: str, mask: torch.Tensor, said: str, tmp_path: Path
) -> None:
    save_file({name: mask}, tmp_path / "masks.safetensors")
    with pytest.raises(ValueError, match=f"{name} .*{said}"):
        read_masks(tmp_path / "masks.safetensors", SHAPES)


def test_what_is_no_file_of_masks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "masks.safetensors"
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        read_masks(path, SHAPES)
    path.write_bytes(b"not one")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        read_masks(path, SHAPES)
    save_file({}, path)
    with pytest.raises(ValueError, match="name no weight"):
        read_masks(path, SHAPES)
