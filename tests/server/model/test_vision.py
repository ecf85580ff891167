"""The vision tower and the projector against transformers'."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llava import TowerType, make_checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from skipserve.model.config import ModelFilesError
from skipserve.model.llava import Llava
from skipserve_policies.flops import projector_flops, vision_flops

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
SIGLIP: dict[str, Any] = {"tower": TowerType.SIGLIP, "select_strategy": "full"}


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"feature_layer": -1},
        {"feature_layer": 2, "select_strategy": "full"},
        {"feature_layer": (1, -2, -1)},
        {"projector_bias": False, "vision_layers": 5},
        SIGLIP,
        SIGLIP | {"feature_layer": -1},
        SIGLIP | {"feature_layer": (0, -2), "patch_size": 6},
        SIGLIP | {"vision_config": (("hidden_act", "gelu"), ("layer_norm_eps", 1e-3))},
    ],
    ids=str,
)
def test_pictures_are_encoded_as_transformers_does(
    tmp_path: Path, shape: dict[str, Any], device: torch.device
) -> None:
    make_checkpoint(tmp_path, **shape)
    model = Llava.load(tmp_path, device, torch.float32)
    assert model.config.sizes.vision.has_cls is ("tower" not in shape)
    oracle = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    pixels = torch.randint(0, 256, (2, 28, 28, 3), dtype=torch.uint8)
    steps = model.config.image_processor
    mean, std = torch.tensor(steps.mean), torch.tensor(steps.std)
    normalised = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = torch.stack(oracle.get_image_features(normalised).pooler_output)
    encoded = model.encode_images(pixels.to(device)).cpu()
    assert encoded.shape == (2, model.config.sizes.rows_per_image, 64)
    assert (encoded - features).abs().max() <= 1e-4 * features.abs().max()


@pytest.mark.parametrize(
    "changes",
    [
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": 0.5},
    ],
    ids=str,
)
def test_numbers_of_the_image_processor_are_followed(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    make_checkpoint(tmp_path)
    file = tmp_path / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"] |= changes
    file.write_text(json.dumps(content))
    model = Llava.load(tmp_path, CPU, torch.float32)
    oracle = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    pixels = torch.randint(0, 256, (2, 28, 28, 3), dtype=torch.uint8)
    processor = CLIPImageProcessorPil(**content["image_processor"])
    values = processor(list(pixels.numpy()), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = torch.stack(oracle.get_image_features(values).pooler_output)
    assert (model.encode_images(pixels) - features).abs().max() <= 1e-4 * features.abs().max()


@pytest.mark.parametrize("shape", [{}, {"select_strategy": "full"}, SIGLIP], ids=str)
def test_a_picture_costs_what_is_counted(tmp_path: Path, shape: dict[str, Any]) -> None:
    make_checkpoint(tmp_path, vision_layers=4, **shape)
    model = Llava.load(tmp_path, CPU, torch.float32)
    sizes = model.config.sizes
    with FlopCounterMode(display=False) as counter:
        model.encode_images(torch.zeros(1, 28, 28, 3, dtype=torch.uint8))
    # torch does not count what the CPU's fused attention does.
    attention = 4 * 3 * sizes.vision.num_rows**2 * sizes.vision.hidden_size
    counted = vision_flops(sizes.vision, 3) + projector_flops(sizes)
    assert counter.get_total_flops() + attention == counted


def test_the_pooling_head_of_siglip_is_not_read(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, **SIGLIP)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    prefix = "vision_tower.vision_model."
    unread = [it for it in tensors if it.startswith((f"{prefix}head.", f"{prefix}post_layernorm."))]
    assert len(unread) == 13
    save_file({it: tensors[it] for it in tensors if it not in unread}, file)
    Llava.load(tmp_path, CPU, torch.float32)


def test_only_the_layers_that_are_used_run(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, vision_layers=6, feature_layer=-4)
    model = Llava.load(tmp_path, CPU, torch.float32)
    assert len(model._vision._tower.encoder.layers) == 3


def test_the_towers_linear_layers_are_packed(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    tower = Llava.load(tmp_path, CPU, torch.float32)._vision._tower
    assert not any(isinstance(module, torch.nn.Linear) for module in tower.modules())


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, top_config=(("projector_hidden_act", "swoosh"),))
    with pytest.raises(ModelFilesError, match="swoosh"):
        Llava.load(tmp_path, CPU, torch.float32)
