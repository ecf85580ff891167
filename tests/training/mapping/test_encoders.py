"""Encoders on random checkpoints of each class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    TimesformerConfig,
    TimesformerModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.lessons import Media, Sound

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48}
SIZES |= {"num_hidden_layers": 2, "num_attention_heads": 2}


def _image(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _save_image_processor(kind: type[Any], folder: Path) -> None:
    sides = {"height": 16, "width": 16}
    size = {"shortest_edge": 16} if kind is CLIPImageProcessorPil else sides
    kind(size=size, crop_size=sides).save_pretrained(folder)


def _clip(folder: Path) -> tuple[Media, int]:
    CLIPVisionModel(CLIPVisionConfig(image_size=16, patch_size=8, **SIZES)).save_pretrained(folder)
    _save_image_processor(CLIPImageProcessorPil, folder)
    return _image(0), 5


def _vit(folder: Path) -> tuple[Media, int]:
    ViTModel(ViTConfig(image_size=16, patch_size=8, **SIZES)).save_pretrained(folder)
    _save_image_processor(ViTImageProcessorPil, folder)
    return _image(0), 5


def _timesformer(folder: Path) -> tuple[Media, int]:
    config = TimesformerConfig(image_size=16, patch_size=8, num_frames=8, **SIZES)
    TimesformerModel(config).save_pretrained(folder)
    _save_image_processor(ViTImageProcessorPil, folder)
    return [_image(seed) for seed in range(8)], 1 + 8 * 4


def _ast(folder: Path) -> tuple[Media, int]:
    config = ASTConfig(max_length=32, num_mel_bins=16, patch_size=8, frequency_stride=8,
                       time_stride=8, **SIZES)  # fmt: skip
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=32, num_mel_bins=16).save_pretrained(folder)
    samples = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    return Sound(samples, 16_000), 2 + 4 * 2


@pytest.mark.parametrize("save", [_clip, _vit, _timesformer, _ast])
def test_each_class_of_encoder(save: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    media, num_rows = save(tmp_path)
    encoder = TransformersEncoder(tmp_path, CPU)
    rows = encoder.encode([media, media])
    assert rows.shape == (2, num_rows, 32)
    torch.testing.assert_close(rows[0], rows[1])
    assert rows.std() > 0.1


def test_an_earlier_layer_without_its_class_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    media, num_rows = _clip(tmp_path)
    plain = TransformersEncoder(tmp_path, CPU)
    earlier = TransformersEncoder(tmp_path, CPU, layer=-2, keeps_class=False)
    assert earlier.encode([media]).shape == (1, num_rows - 1, 32)
    assert not torch.allclose(earlier.encode([media]), plain.encode([media])[:, 1:])
    assert len({plain.digest, earlier.digest}) == 2
    assert plain.digest == TransformersEncoder(tmp_path, CPU).digest


def test_a_sound_at_another_rate_is_refused(tmp_path: Path) -> None:
    media, _ = _ast(tmp_path)
    assert isinstance(media, Sound)
    with pytest.raises(ValueError, match="8000 samples a second: the encoder expects 16000"):
        TransformersEncoder(tmp_path, CPU).encode([Sound(media.samples, 8000)])


def test_other_types_are_refused(tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'llama': expected one of clip_vision_model"):
        TransformersEncoder(tmp_path, CPU)
