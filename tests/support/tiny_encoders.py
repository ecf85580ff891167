"""Random encoders of each type, small enough for a test, and media that they take."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.io import wavfile
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    TimesformerConfig,
    TimesformerModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48}
SIZES |= {"num_hidden_layers": 2, "num_attention_heads": 2}
SIDE = 16  # pixels
RATE = 16_000  # samples a second
NUM_FRAMES = 8


@dataclass(frozen=True)
class TinyEncoder:
    """A type of encoder.

    Attributes:
        save: writes one into a folder.
        write_media: writes what it takes, drawn by a number, beside a path without an ending.
        num_rows: that it gives.
    """

    save: Callable[[Path], None]
    write_media: Callable[[Path, int], None]
    num_rows: int


def make_image(seed: int) -> Image.Image:
    """Make a picture that is not square."""
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _write_image(path: Path, seed: int) -> None:
    make_image(seed).save(path.with_suffix(".png"))


def _write_frames(path: Path, seed: int) -> None:
    path.mkdir()
    for number in range(NUM_FRAMES + 3):
        make_image(100 * seed + number).save(path / f"{number:03}.png")


def _write_sound(path: Path, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-1, 1, 4000).astype(np.float32)
    wavfile.write(path.with_suffix(".wav"), RATE, samples)


def _save_clip(folder: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(image_size=SIDE, patch_size=8, **SIZES)).save_pretrained(
        folder
    )
    crop = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop).save_pretrained(folder)


def _save_vit(folder: Path) -> None:
    ViTModel(ViTConfig(image_size=SIDE, patch_size=8, **SIZES)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def _save_timesformer(folder: Path) -> None:
    config = TimesformerConfig(image_size=SIDE, patch_size=8, num_frames=NUM_FRAMES, **SIZES)
    TimesformerModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def _save_ast(folder: Path) -> None:
    config = ASTConfig(max_length=32, num_mel_bins=16, patch_size=8, frequency_stride=8,
                       time_stride=8, **SIZES)  # fmt: skip
    ASTModel(config).save_pretrained(folder)
    extractor = ASTFeatureExtractor(  # type: ignore[no-untyped-call]
        max_length=32, num_mel_bins=16
    )
    extractor.save_pretrained(folder)


ENCODERS = {
    "clip_vision_model": TinyEncoder(_save_clip, _write_image, 5),
    "vit": TinyEncoder(_save_vit, _write_image, 5),
    "timesformer": TinyEncoder(_save_timesformer, _write_frames, 1 + NUM_FRAMES * 4),
    "audio-spectrogram-transformer": TinyEncoder(_save_ast, _write_sound, 2 + 4 * 2),
}


def save_encoder(kind: str, folder: Path) -> Path:
    """Save a random encoder of a type; returns its folder."""
    torch.manual_seed(0)
    ENCODERS[kind].save(folder)
    return folder
