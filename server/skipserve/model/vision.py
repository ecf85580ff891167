"""Pictures to visual rows: a tower of transformers', cut where its output is used, and a projector.

Knows nothing about token ids and positions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, CLIPVisionModel, SiglipVisionModel

from skipserve.model.activation import activation_function
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.projector import load_projector
from skipserve.model.reduction.choose import reduce_features, reduce_rows
from skipserve.model.reduction.seen import Seen, watched
from skipserve.model.weights import Weights
from skipserve_kernels.plain.linear.op import linear, pack
from skipserve_policies.reduction import Reduction, reduces_features

# By the `model_type` of their configurations.
_TOWERS: dict[str, Any] = {
    "clip_vision_model": CLIPVisionModel,
    "siglip_vision_model": SiglipVisionModel,
}


class VisionEncoder:
    """The tower and the projector.

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
        processor = config.image_processor
        # Division by 255 rounds as the table of a picture's values does, multiplication does not.
        self._divisor = 1 / processor.scale
        self._mean = torch.tensor(processor.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(processor.std, device=device).view(3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Encode pictures: uint8 [N, S, S, 3] to rows [N, R, D]."""
        return self._projector(self._shown(self._states(pixels)))

    def reduced(self, pixels: Tensor, reductions: Sequence[Reduction | None]) -> list[Tensor]:
        """Encode pictures, uint8 [N, S, S, 3], to what is left of their rows, [R, D] each.

        The tower sees all at once; then those go together that are reduced alike.
        """
        with watched(self._tower.encoder.layers[-1].self_attn) as last:
            states = self._states(pixels)
        assert last.queries is not None
        assert last.keys is not None
        vision = self._config.sizes.vision
        seen = Seen(states, last.queries, last.keys, vision.num_heads, int(vision.has_cls))
        left: dict[int, Tensor] = {}
        for places in _alike(reductions):
            group = [it for place in places if (it := reductions[place]) is not None]
            left |= zip(places, self._reduce(seen.of(places), group), strict=True)
        return [left[place] for place in range(len(reductions))]

    def _reduce(self, seen: Seen, reductions: Sequence[Reduction]) -> Tensor:
        """Return what is left of pictures that are reduced alike, or not at all, [N, R, D]."""
        features = self._shown(seen.states)
        if not reductions:
            return self._projector(features)
        if reduces_features(reductions[0], self._config.sizes):
            return self._projector(reduce_features(seen, features, reductions))
        return reduce_rows(self._projector(features), reductions)

    def _states(self, pixels: Tensor) -> Tensor:
        """Return what the tower makes of pictures, with the class token's row, [N, P + 1, E]."""
        rescaled = pixels.permute(0, 3, 1, 2).float() / self._divisor
        normalised = ((rescaled - self._mean) / self._std).to(self._dtype)
        states = self._tower(pixel_values=normalised, output_hidden_states=True).hidden_states
        return torch.cat([states[layer] for layer in self._config.feature_layers], dim=-1)

    def _shown(self, states: Tensor) -> Tensor:
        """Return the features among the tower's rows: with or without the class token's."""
        vision = self._config.sizes.vision
        return states[:, 1:] if vision.has_cls and not vision.keeps_cls else states


def _alike(reductions: Sequence[Reduction | None]) -> Iterable[list[int]]:
    """Return the places of reductions that differ in their seeds alone, a list each."""
    groups: dict[Reduction | None, list[int]] = {}
    for place, reduction in enumerate(reductions):
        kind = reduction and replace(reduction, seed=None)
        groups.setdefault(kind, []).append(place)
    return groups.values()


def _load_tower(config: ModelConfig, weights: Weights, device: torch.device) -> Any:
    sizes = config.sizes.vision
    tower = _empty_tower(config)
    # Its output goes to the pooled state alone, which nobody reads.
    tower.post_layernorm = nn.Identity()
    weights.leave(r"vision\.post_layernorm\..*")
    if not sizes.has_cls:
        weights.leave(r"vision\.head\..*")
    for layer in range(sizes.num_layers_used, sizes.num_layers):
        weights.leave(rf"vision\.encoder\.layers\.{layer}\..*")
    state = {
        name: weights.take(f"vision.{name}", *parameter.shape)
        for name, parameter in tower.named_parameters()
    }
    tower.load_state_dict(state, assign=True)
    _pack_linears(tower)
    tower.embeddings.position_ids = torch.arange(sizes.num_rows, device=device).unsqueeze(0)
    return tower.eval().requires_grad_(requires_grad=False)


def _empty_tower(config: ModelConfig) -> Any:
    """Return the tower as deep as it is used, without weights.

    Raises:
        ModelFilesError: transformers does not take its configuration.
    """
    kind = config.vision.get("model_type", "clip_vision_model")
    # SigLIP's pools its output by a head of its own, which nobody reads.
    changes = {"num_hidden_layers": config.sizes.vision.num_layers_used, "vision_use_head": False}
    try:
        settings: Any = CONFIG_MAPPING[kind](**{**config.vision, **changes})
        activation_function("vision_config.hidden_act", settings.hidden_act)
        with torch.device("meta"):
            return _TOWERS[kind](settings)
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelFilesError(f"the vision_config in config.json is not valid: {error}") from error


class _Packed(nn.Module):
    """Stands in for a linear layer."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self._packed = pack(plain.weight, plain.bias)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self._packed)


def _pack_linears(module: nn.Module) -> None:
    """Replace all linear layers inside a module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _Packed(child))
        else:
            _pack_linears(child)
