"""The vision tower and the projector against transformers'."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from media_models import AST, KINDS, MAPPING, MODELS, TIMESFORMER, VIT, make_media_model
from safetensors.torch import load_file, save_file
from tiny_llava import TowerType, make_checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    ASTFeatureExtractor,
    LlavaForConditionalGeneration,
    ViTImageProcessorPil,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from skipserve.model.config import ModelFilesError
from skipserve.model.llava import Llava
from skipserve.model.reduction.choose import reduce_rows
from skipserve_policies.flops import projector_flops, vision_flops
from skipserve_policies.reduction import Reduction
from skipserve_policies.schema import Reducer

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


def _media(model: Llava, count: int) -> torch.Tensor:
    """Return random media as the tower takes them."""
    shape = (count, *model.config.sizes.vision.input_shape)
    generator = torch.Generator().manual_seed(1)
    if model.config.sizes.vision.spectrogram is not None:
        return torch.randn(shape, generator=generator) * 4 - 4
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _values(kind: str, folder: Path, media: torch.Tensor) -> torch.Tensor:
    """Return what transformers' processor makes of media as they come to the tower."""
    if kind == AST:
        extractor = ASTFeatureExtractor.from_pretrained(folder)
        return torch.from_numpy(extractor.normalize(media.numpy()))
    processor = ViTImageProcessorPil.from_pretrained(folder)
    flat = media.view(-1, *media.shape[-3:]).numpy()
    values: torch.Tensor = processor([*flat], return_tensors="pt")["pixel_values"]
    return values.view(*media.shape[:-3], *values.shape[1:])


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("layer", "strategy"),
    [(-1, "full"), (-1, "default"), (-2, "full"), (1, "default"), (2, "full")],
)
def test_features_are_those_of_transformers(
    kind: str, layer: int, strategy: str, tmp_path: Path, device: torch.device
) -> None:
    folder = make_media_model(tmp_path / "model", kind, layer=layer, strategy=strategy)
    model = Llava.load(folder, device, torch.float32)
    media = _media(model, 3)
    oracle = MODELS[kind].from_pretrained(tmp_path / "encoder").eval()
    with torch.inference_mode():
        output = oracle(_values(kind, tmp_path / "encoder", media), output_hidden_states=True)
    found = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
    features = found if strategy == "full" else found[:, 1:]
    vision = model.config.sizes.vision
    assert features.shape[1:] == (vision.num_features, vision.feature_size)
    with torch.inference_mode():
        seen = model._vision._shown(model._vision._states(media.to(device))).cpu()
    assert (seen - features).abs().max() <= 1e-4 * features.abs().max()
    rows = model.encode_images(media.to(device))
    assert rows.shape == (3, MAPPING.num_queries, 64)
    each = torch.cat([model.encode_images(it[None].to(device)) for it in media])
    assert (rows - each).abs().max() <= 1e-4 * rows.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_seen_or_heard_costs_what_is_counted(kind: str, tmp_path: Path) -> None:
    model = Llava.load(make_media_model(tmp_path / "model", kind), CPU, torch.float32)
    sizes = model.config.sizes
    model._vision._tower.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model._vision._states(_media(model, 1))
    assert counter.get_total_flops() == vision_flops(sizes.vision, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_unread_layers_need_not_be_there(kind: str, tmp_path: Path) -> None:
    """Nor the norm behind them, which is for the output, nor ViT's pooler."""
    folder = make_media_model(tmp_path / "model", kind, layer=1)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    last = re.compile(r"vision_tower\.((encoder\.)?layers?\.1\.|layernorm\.|pooler\.)")
    kept = {name: it for name, it in tensors.items() if not last.match(name)}
    assert len(kept) < len(tensors) - 10
    whole = Llava.load(folder, CPU, torch.float32)
    save_file(kept, file)
    media = _media(whole, 1)
    rest = Llava.load(folder, CPU, torch.float32)
    assert torch.equal(rest.encode_images(media), whole.encode_images(media))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_module_are_reduced_whatever_they_show(kind: str, tmp_path: Path) -> None:
    model = Llava.load(make_media_model(tmp_path / "model", kind), CPU, torch.float32)
    media = _media(model, 2)
    rows = model.encode_images(media)
    random = Reduction(Reducer.RANDOM, 2, seed=5)
    one, other = model.encode_reduced(media, [random, None])
    torch.testing.assert_close(other, rows[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one, reduce_rows(rows[:1], [random])[0], rtol=1e-4, atol=1e-4)
    divprune = Reduction(Reducer.DIVPRUNE, 2)
    (far,) = model.encode_reduced(media[:1], [divprune])
    torch.testing.assert_close(far, reduce_rows(rows[:1], [divprune])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "field", "value", "told"),
    [
        (TIMESFORMER, "num_frames", 16, "num_frames is 16; a video is shown as 8 frames"),
        (TIMESFORMER, "attention_type", "space_only", "attention_type is 'space_only'"),
        (AST, "patch_size", 40, "patch_size is 40, more than max_length"),
        (AST, "max_length", 0, "max_length must be a positive whole number"),
        (VIT, "num_channels", 1, "num_channels is 1"),
        (VIT, "hidden_act", "nope", "vision_config"),
    ],
)
def test_encoders_that_cannot_be_run_are_named(
    kind: str, field: str, value: object, told: str, tmp_path: Path
) -> None:
    folder = make_media_model(tmp_path / "model", kind)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"][field] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFilesError, match=told):
        Llava.load(folder, CPU, torch.float32)
