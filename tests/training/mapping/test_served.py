"""Checkpoints that the server loads, taken apart: as transformers loads them, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llava import DecoderType, Naming, make_checkpoint
from tiny_opt import OptShape
from transformers import LlavaForConditionalGeneration

from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping.export import projector_tensors
from skipserve_training.mapping.projectors import ProjectorType, make_projector
from skipserve_training.mapping.served import PROJECTOR_WEIGHTS, load_module, open_model

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")


@pytest.mark.parametrize("naming", Naming)
@pytest.mark.parametrize("tie", [True, False])
def test_parts_are_those_that_transformers_loads(naming: Naming, tie: bool, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, naming=naming, tie=tie, num_shards=2)
    parts = open_model(tmp_path, torch.float32, CPU)
    expected: Any = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    model: Any = parts.language._model
    language = expected.model.language_model.state_dict()
    assert all(torch.equal(model.model.state_dict()[name], it) for name, it in language.items())
    assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    tower: Any = parts.encoder._model
    vision = {name.removeprefix("vision_model."): it for name, it in tower.state_dict().items()}
    for name, it in expected.model.vision_tower.state_dict().items():
        assert torch.equal(vision[name.removeprefix("vision_model.")], it), name
    projector = expected.model.multi_modal_projector.state_dict()
    assert all(
        torch.equal(parts.projector.state_dict()[name], it) for name, it in projector.items()
    )
    assert parts.tokenizer.eos_token_id == 2


def test_what_is_written_comes_back(served_folder: Path) -> None:
    parts = open_model(served_folder, torch.float32, CPU)
    stored = load_file(served_folder / "model.safetensors")
    for name, value in projector_tensors(parts.projector).items():
        assert torch.equal(stored[name], value)
    assert parts.depth == len(parts.language.blocks) == 2


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"decoder": DecoderType.QWEN2}, "'qwen2': expected one of llama, opt"),
        ({"feature_layer": (-2, -1)}, "the features of 2 layers: expected one of .*, and one"),
        ({"projector_bias": False}, "and no bias: expected 'gelu', and a bias"),
        ({"top_config": (("model_type", "gpt2"),)}, "its model_type is 'gpt2'"),
    ],
)
def test_other_parts_are_refused(shape: dict[str, Any], said: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, **shape)
    with pytest.raises(ValueError, match=said):
        open_model(tmp_path, torch.float32, CPU)


def test_a_missing_or_misshapen_tensor_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, opt=OptShape())
    path, name = tmp_path / "model.safetensors", "model.decoder.layers.0.fc1.weight"
    tensors = load_file(path)
    kept = tensors.pop(f"language_model.{name}")
    save_file(tensors, path)
    with pytest.raises(ValueError, match=f"expected language_model.{name} .* found nothing"):
        open_model(tmp_path, torch.float32, CPU)
    save_file(tensors | {f"language_model.{name}": kept[1:]}, path)
    with pytest.raises(ValueError, match=r"found \[175, 64\]"):
        open_model(tmp_path, torch.float32, CPU)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_module_comes_from_a_training_or_a_checkpoint(
    is_training: bool, served_folder: Path, tmp_path: Path
) -> None:
    projector = open_model(served_folder, torch.float32, CPU).projector
    tensors = {name: value + 1 for name, value in projector_tensors(projector).items()}
    if is_training:
        save_file(tensors, tmp_path / PROJECTOR_WEIGHTS)
    else:
        whole = load_file(served_folder / "model.safetensors")
        save_file(whole | tensors, tmp_path / "model.safetensors")
    load_module(projector, tmp_path)
    assert all(torch.equal(projector_tensors(projector)[name], it) for name, it in tensors.items())


def test_a_module_of_other_sizes_is_refused(served_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no trained module"):
        load_module(make_projector(ProjectorType.MAPPING, 32, 32), tmp_path)
    sizes = MappingSizes(num_queries=4, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16)
    with pytest.raises(ValueError, match=r"multi_modal_projector.queries of shape \[4, 16\]"):
        load_module(make_projector(ProjectorType.MAPPING, 32, 32, sizes), served_folder)


def test_the_tower_gives_the_features_that_the_configuration_names(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, select_strategy="full", feature_layer=1)
    parts = open_model(tmp_path, torch.float32, CPU)
    assert (parts.encoder.layer, parts.encoder.keeps_class) == (1, True)
    assert json.loads((tmp_path / "config.json").read_text())["vision_feature_layer"] == 1
