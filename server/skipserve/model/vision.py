"""Pictures to visual rows: a tower of transformers', cut where its output is used, and a projector.

Knows nothing about token ids and positions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, CLIPVisionModel, SiglipVisionModel

from skipserve.model.activation import activation_function
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.projector import load_projector
from skipserve.model.weights import Weights
from skipserve_kernels.plain.linear.op import linear, pack

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
        rescaled = pixels.permute(0, 3, 1, 2).float() / self._divisor
        normalised = ((rescaled - self._mean) / self._std).to(self._dtype)
        states = self._tower(pixel_values=normalised, output_hidden_states=True).hidden_states
        features = torch.cat([states[layer] for layer in self._config.feature_layers], dim=-1)
        vision = self._config.sizes.vision
        if vision.has_cls and not vision.keeps_cls:
            features = features[:, 1:]
        return self._projector(features)


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
