"""Frozen encoders behind one interface: media in, rows out. Weights and processors are files."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import (
    ASTFeatureExtractor,
    ASTModel,
    AutoConfig,
    CLIPImageProcessorPil,
    CLIPVisionModel,
    PreTrainedModel,
    TimesformerModel,
    ViTImageProcessorPil,
    ViTModel,
)

from skipserve_training.mapping.lessons import Media


class FrozenEncoder(Protocol):
    """Turns media into rows."""

    @property
    def digest(self) -> str:
        """Name the weights and what is taken from them."""
        ...

    def encode(self, media: Sequence[Media]) -> Tensor:
        """Return `[B, P, d_vis]`."""
        ...


@dataclass(frozen=True)
class _Kind:
    """How transformers loads one type of encoder, and what its processor calls the input."""

    model: type[PreTrainedModel]
    processor: type[Any]
    prepare: Callable[[Any, Sequence[Any]], Tensor]


def _pixels(processor: Any, images: Sequence[Any]) -> Tensor:
    pixels: Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
    return pixels


def _frames(processor: Any, videos: Sequence[Any]) -> Tensor:
    """Prepare the frames of videos, `[B, F, 3, H, W]`."""
    return torch.stack([_pixels(processor, frames) for frames in videos])


def _spectrograms(processor: Any, sounds: Sequence[Any]) -> Tensor:
    rate = processor.sampling_rate
    for sound in sounds:
        if sound.rate != rate:
            raise ValueError(
                f"A sound has {sound.rate} samples a second: the encoder expects {rate}."
            )
    samples = [sound.samples for sound in sounds]
    values: Tensor = processor(samples, sampling_rate=rate, return_tensors="pt")["input_values"]
    return values


_KINDS: dict[str, _Kind] = {
    "clip_vision_model": _Kind(CLIPVisionModel, CLIPImageProcessorPil, _pixels),
    "clip": _Kind(CLIPVisionModel, CLIPImageProcessorPil, _pixels),
    "vit": _Kind(ViTModel, ViTImageProcessorPil, _pixels),
    "timesformer": _Kind(TimesformerModel, ViTImageProcessorPil, _frames),
    "audio-spectrogram-transformer": _Kind(ASTModel, ASTFeatureExtractor, _spectrograms),
}


class TransformersEncoder:
    """An encoder of transformers; runs in fp32.

    Args:
        folder: where its processor is, and its weights.
        device: where it runs.
        layer: which of its hidden states is read; -1 is its output.
        keeps_class: whether its first row, that of the class, is read.
        model: the encoder itself, where the folder holds it as a part of another model; of CLIP's
            type.

    Raises:
        ValueError: The folder holds no encoder, or one of an unknown type.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        layer: int = -1,
        keeps_class: bool = True,
        model: nn.Module | None = None,
    ) -> None:
        kind = _kind(folder) if model is None else _KINDS["clip"]
        self._kind = kind
        self._processor = kind.processor.from_pretrained(folder)
        if model is None:
            model = kind.model.from_pretrained(folder, dtype=torch.float32)
        self._model = model.to(device, torch.float32).requires_grad_(False).eval()
        self._device = device
        self._layer = layer
        self._keeps_class = keeps_class

    @property
    def digest(self) -> str:
        """Name the weights, the layer, and whether the row of the class is kept."""
        digest = hashlib.sha256(f"{self._layer} {self._keeps_class}".encode())
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def encode(self, media: Sequence[Media]) -> Tensor:
        """Return `[B, P, d_vis]`."""
        inputs = self._kind.prepare(self._processor, media).to(self._device)
        output = self._model(inputs, output_hidden_states=self._layer != -1)
        rows: Tensor = output.last_hidden_state
        if self._layer != -1:
            rows = output.hidden_states[self._layer]
        return rows if self._keeps_class else rows[:, 1:]


def _kind(folder: Path) -> _Kind:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no encoder: it has no config.json.")
    name = AutoConfig.from_pretrained(folder).model_type
    if name not in _KINDS:
        raise ValueError(
            f"{folder} holds an encoder of type {name!r}: expected one of {', '.join(_KINDS)}."
        )
    return _KINDS[name]
