"""Pictures, videos or sounds to visual rows: an encoder of transformers', and a projector.

The encoder is cut where its output is used. Knows nothing about token ids and positions.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    ASTModel,
    CLIPVisionModel,
    SiglipVisionModel,
    TimesformerModel,
    ViTModel,
)

from skipserve.model.activation import activation_function
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.image_processor import ImageProcessor
from skipserve.model.projector import load_projector
from skipserve.model.reduction.choose import reduce_features, reduce_rows
from skipserve.model.reduction.seen import Seen, watched
from skipserve.model.weights import Weights
from skipserve_kernels.plain.linear.op import linear, pack
from skipserve_policies.reduction import Reduction, reduces_features


@dataclass(frozen=True)
class _Kind:
    """A type of encoder.

    Attributes:
        model: transformers' class.
        layers: the name of its layers' list.
        norm: the name of the norm behind the last of them.
        unread: patterns of the names of tensors that nobody reads.
        settings: what the class is made with.
        changes: to its configuration.
    """

    model: Any
    layers: str
    norm: str
    unread: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)


# By the `model_type` of their configurations.
_KINDS: dict[str, _Kind] = {
    "clip_vision_model": _Kind(CLIPVisionModel, "encoder.layers", "post_layernorm"),
    # Its output is pooled by a head of its own.
    "siglip_vision_model": _Kind(
        SiglipVisionModel,
        "encoder.layers",
        "post_layernorm",
        unread=(r"head\..*",),
        changes={"vision_use_head": False},
    ),
    "vit": _Kind(
        ViTModel,
        "layers",
        "layernorm",
        unread=(r"pooler\..*",),
        settings={"add_pooling_layer": False},
    ),
    "timesformer": _Kind(TimesformerModel, "encoder.layer", "layernorm"),
    "audio-spectrogram-transformer": _Kind(ASTModel, "layers", "layernorm"),
}


class VisionEncoder:
    """The tower and the projector. What it is shown is media of one kind, [N, ...].

    Pictures are uint8 [N, S, S, 3], videos uint8 [N, F, S, S, 3], log energies of sounds
    float32 [N, T, M].

    Args:
        config: the model.
        weights: what to read the tensors from.
        device: where they are.
        dtype: what they are.
    """

    def __init__(
        self, config: ModelConfig, weights: Weights, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._config = config
        self._dtype = dtype
        self._tower = _load_tower(config, weights, device)
        self._projector = load_projector(config, weights)
        self._normalisation = _Normalisation.of(config, device)

    def __call__(self, media: Tensor) -> Tensor:
        """Encode media, [N, ...], to rows [N, R, D]."""
        return self._projector(self._shown(self._states(media)))

    def reduced(self, media: Tensor, reductions: Sequence[Reduction | None]) -> list[Tensor]:
        """Encode media, [N, ...], to what is left of their rows, [R, D] each.

        The tower sees all at once; then those go together that are reduced alike.
        """
        sizes = self._config.sizes
        is_watched = any(it is not None and reduces_features(it, sizes) for it in reductions)
        last = self._tower.encoder.layers[-1].self_attn if is_watched else None
        with nullcontext() if last is None else watched(last) as found:
            states = self._states(media)
        seen = None if found is None else Seen.of_tower(states, found, sizes.vision)
        left: dict[int, Tensor] = {}
        for places in _alike(reductions):
            group = [it for place in places if (it := reductions[place]) is not None]
            some = None if seen is None else seen.of(places)
            left |= zip(places, self._reduce(states[places], some, group), strict=True)
        return [left[place] for place in range(len(reductions))]

    def _reduce(self, states: Tensor, seen: Seen | None, reductions: Sequence[Reduction]) -> Tensor:
        """Return what is left of media that are reduced alike, or not at all, [N, R, D]."""
        features = self._shown(states)
        if not reductions:
            return self._projector(features)
        if reduces_features(reductions[0], self._config.sizes):
            assert seen is not None
            return self._projector(reduce_features(seen, features, reductions))
        return reduce_rows(self._projector(features), reductions)

    def _states(self, media: Tensor) -> Tensor:
        """Return what the tower makes of media, with the class token's row, [N, P + 1, E]."""
        values = self._normalisation(media).to(self._dtype)
        output = self._tower(values, output_hidden_states=not self._config.reads_output)
        if self._config.reads_output:
            return torch.as_tensor(output.last_hidden_state)
        states = output.hidden_states
        return torch.cat([states[layer] for layer in self._config.feature_layers], dim=-1)

    def _shown(self, states: Tensor) -> Tensor:
        """Return the features among the tower's rows: with or without the class token's."""
        vision = self._config.sizes.vision
        return states[:, 1:] if vision.has_cls and not vision.keeps_cls else states


@dataclass(frozen=True)
class _Normalisation:
    """Rescales and shifts what comes as whole numbers, or as a sound's energies.

    Attributes:
        scale: what is divided by first.
        mean: is subtracted, by channel.
        divisor: what it is then divided by, by channel.
        has_channels: whether a medium's last dimension is its channels, which come first of a
            picture's in the tower.
    """

    scale: float
    mean: Tensor
    divisor: Tensor
    has_channels: bool

    @classmethod
    def of(cls, config: ModelConfig, device: torch.device) -> "_Normalisation":
        processor = config.processor
        if isinstance(processor, ImageProcessor):
            mean = torch.tensor(processor.mean, device=device).view(3, 1, 1)
            std = torch.tensor(processor.std, device=device).view(3, 1, 1)
            # Division by 255 rounds as the table of a picture's values does, multiplication does
            # not.
            return cls(1 / processor.scale, mean, std, has_channels=True)
        mean, divisor = torch.tensor((processor.mean, processor.divisor), device=device)
        return cls(1.0, mean, divisor, has_channels=False)

    def __call__(self, media: Tensor) -> Tensor:
        if self.has_channels:
            media = media.movedim(-1, -3)
        return (media.float() / self.scale - self.mean) / self.divisor


def _alike(reductions: Sequence[Reduction | None]) -> Iterable[list[int]]:
    """Return the places of reductions that differ in their seeds alone, a list each."""
    groups: dict[Reduction | None, list[int]] = {}
    for place, reduction in enumerate(reductions):
        kind = reduction and replace(reduction, seed=None)
        groups.setdefault(kind, []).append(place)
    return groups.values()


def _load_tower(config: ModelConfig, weights: Weights, device: torch.device) -> Any:
    sizes = config.sizes.vision
    kind = _KINDS[sizes.kind]
    tower = _empty_tower(config, kind)
    for pattern in kind.unread:
        weights.leave(rf"vision\.{pattern}")
    if not config.reads_output:
        # What comes of it is read by nobody, but for a pooled state.
        setattr(tower, kind.norm, nn.Identity())
        weights.leave(rf"vision\.{kind.norm}\..*")
    layers = kind.layers.replace(".", r"\.")
    for layer in range(sizes.num_layers_used, sizes.num_layers):
        weights.leave(rf"vision\.{layers}\.{layer}\..*")
    state = {
        name: weights.take(f"vision.{name}", *parameter.shape)
        for name, parameter in tower.named_parameters()
    }
    tower.load_state_dict(state, assign=True)
    _pack_linears(tower, in_8_bits=weights.in_8_bits)
    if sizes.has_picture_tower:
        tower.embeddings.position_ids = torch.arange(sizes.num_rows, device=device).unsqueeze(0)
    return tower.eval().requires_grad_(requires_grad=False)


def _empty_tower(config: ModelConfig, kind: _Kind) -> Any:
    """Return the tower as deep as it is used, without weights.

    Raises:
        ModelFilesError: transformers does not take its configuration.
    """
    vision = config.sizes.vision
    changes = {"num_hidden_layers": vision.num_layers_used, **kind.changes}
    try:
        settings: Any = CONFIG_MAPPING[vision.kind](**{**config.vision, **changes})
        activation_function("vision_config.hidden_act", settings.hidden_act)
        with torch.device("meta"):
            return kind.model(settings, **kind.settings)
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelFilesError(f"the vision_config in config.json is not valid: {error}") from error


class _Packed(nn.Module):
    """Stands in for a linear layer."""

    def __init__(self, plain: nn.Linear, *, in_8_bits: bool) -> None:
        super().__init__()
        self._packed = pack(plain.weight, plain.bias, in_8_bits=in_8_bits)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self._packed)


def _pack_linears(module: nn.Module, *, in_8_bits: bool) -> None:
    """Replace all linear layers inside a module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _Packed(child, in_8_bits=in_8_bits))
        else:
            _pack_linears(child, in_8_bits=in_8_bits)
