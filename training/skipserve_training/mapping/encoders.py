"""Frozen encoders behind one interface: media in, rows out. Weights and processors are files."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    ASTFeatureExtractor,
    ASTModel,
    AutoConfig,
    CLIPImageProcessorPil,
    CLIPVisionModel,
    PretrainedConfig,
    PreTrainedModel,
    TimesformerModel,
    ViTImageProcessorPil,
    ViTModel,
)
from transformers.initialization import no_init_weights

from skipserve_training.mapping.lessons import Media, Sound


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
    """How transformers loads one type of encoder, and what it takes.

    Attributes:
        prepare: makes its input of media by its processor.
        media: the type of what it takes.
    """

    model: type[PreTrainedModel]
    processor: type[Any]
    prepare: Callable[[Any, Sequence[Any]], Tensor]
    media: type[Media]

    def check(self, media: Sequence[Media]) -> None:
        """Refuse what the encoder does not take."""
        for medium in media:
            if not isinstance(medium, self.media):
                raise ValueError(
                    f"The encoder takes {_NAMES[self.media]}: expected no "
                    f"{next(name for kind, name in _NAMES.items() if isinstance(medium, kind))}."
                )


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


CLIP = "clip_vision_model"

_NAMES: dict[type[Media], str] = {
    Image.Image: "pictures",
    list: "videos, each a folder of frames",
    Sound: "sounds",
}

_KINDS: dict[str, _Kind] = {
    CLIP: _Kind(CLIPVisionModel, CLIPImageProcessorPil, _pixels, Image.Image),
    "clip": _Kind(CLIPVisionModel, CLIPImageProcessorPil, _pixels, Image.Image),
    "vit": _Kind(ViTModel, ViTImageProcessorPil, _pixels, Image.Image),
    "timesformer": _Kind(TimesformerModel, ViTImageProcessorPil, _frames, list),
    "audio-spectrogram-transformer": _Kind(ASTModel, ASTFeatureExtractor, _spectrograms, Sound),
}


ENCODER_TYPES = frozenset(_KINDS)


class TransformersEncoder:
    """An encoder of transformers; computes in fp32. Weights of its own folder are rounded to bf16.

    Attributes:
        processor: what makes its input of media.
        layer: which of its hidden states is read; -1 is its output.
        keeps_class: whether its first row, that of the class, is read.

    Args:
        folder: where its processor is, and its weights.
        device: where it runs.
        model: the encoder itself, where the folder holds it as a part of another model.

    Raises:
        ValueError: The folder holds no encoder, or one of an unknown type.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        layer: int = -1,
        keeps_class: bool = True,
        model: Any = None,  # transformers leaves much untyped
    ) -> None:
        kind = _kind(folder) if model is None else _KINDS[model.config.model_type]
        self._kind = kind
        self.processor = kind.processor.from_pretrained(folder)
        if model is None:
            # What it learns of is what is written beside it.
            model = kind.model.from_pretrained(folder, dtype=torch.bfloat16)
        self._model = model.float().to(device).requires_grad_(False).eval()
        self._device = device
        self.layer = layer
        self.keeps_class = keeps_class

    @property
    def config(self) -> PretrainedConfig:
        """Return its own configuration, whatever it was a part of."""
        config: PretrainedConfig = self._model.config
        return config

    def tensors(self) -> dict[str, Tensor]:
        """Return its weights in bf16, on the CPU, by their names in it."""
        return {
            name: value.to("cpu", torch.bfloat16) if value.is_floating_point() else value.cpu()
            for name, value in self._model.state_dict().items()
        }

    @property
    def digest(self) -> str:
        """Name the weights, the layer, and whether the row of the class is kept."""
        layer = self.layer
        if layer != -1 or self.config.model_type == CLIP:  # whose output is its last layer's
            layer %= self.config.num_hidden_layers + 1
        digest = hashlib.sha256(f"{layer} {self.keeps_class}".encode())
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def encode(self, media: Sequence[Media]) -> Tensor:
        """Return `[B, P, d_vis]`.

        Raises:
            ValueError: The encoder does not take such media.
        """
        self._kind.check(media)
        inputs = self._kind.prepare(self.processor, media).to(self._device)
        output = self._model(inputs, output_hidden_states=self.layer != -1)
        rows: Tensor = output.last_hidden_state
        if self.layer != -1:
            rows = output.hidden_states[self.layer]
        return rows if self.keeps_class else rows[:, 1:]


def empty_encoder(fields: Mapping[str, Any]) -> Any:
    """Make an encoder of a known type of its configuration; its weights are not set."""
    kind = fields.get("model_type", CLIP)
    with no_init_weights():
        return _KINDS[kind].model(CONFIG_MAPPING[kind](**fields))


def _kind(folder: Path) -> _Kind:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no encoder: it has no config.json.")
    name = AutoConfig.from_pretrained(folder).model_type
    if name not in _KINDS:
        raise ValueError(
            f"{folder} holds an encoder of type {name!r}: expected one of {', '.join(_KINDS)}."
        )
    return _KINDS[name]
