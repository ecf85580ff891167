"""What was exported comes back."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from skipserve_training.demo.export import checkpoint_tensors
from skipserve_training.demo.imports import read_checkpoint
from skipserve_training.demo.model import DemoModel, ModelSizes

pytestmark = pytest.mark.fast

SIZES = ModelSizes(448, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = DemoModel(SIZES)
    with torch.no_grad():
        for parameter in model.parameters():  # none is all ones or zeros, so none is like another
            parameter.normal_()
    save_file(checkpoint_tensors(model), tmp_path / "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "expected.pt")
    return tmp_path


def test_every_parameter_comes_back_rounded(folder: Path) -> None:
    expected = torch.load(folder / "expected.pt", weights_only=True)
    found = read_checkpoint(folder, SIZES)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], value.bfloat16().float()), name


def test_a_model_takes_them(folder: Path) -> None:
    DemoModel(SIZES).load_state_dict(read_checkpoint(folder, SIZES))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no checkpoint: model\.safetensors is missing"):
        read_checkpoint(tmp_path, SIZES)


def test_a_missing_weight_is_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["language_model.model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 'language_model\.model\.norm\.weight'"):
        read_checkpoint(folder, SIZES)
