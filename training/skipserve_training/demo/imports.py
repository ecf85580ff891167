"""Reads a checkpoint that `export` wrote back into the parameters of a model."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from skipserve_training.demo.model import ModelSizes

_DECODER = "language_model.model."
_VISION = "vision_tower.vision_model."
_QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_DECODER_LAYER: dict[str, tuple[str, ...]] = {
    "attention_norm": ("input_layernorm",),
    "qkv": _QUERY_KEY_VALUE,
    "output": ("self_attn.o_proj",),
    "ffn_norm": ("post_attention_layernorm",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
_VISION_LAYER: dict[str, tuple[str, ...]] = {
    "norm1": ("layer_norm1",),
    "qkv": _QUERY_KEY_VALUE,
    "output": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "fc1": ("mlp.fc1",),
    "fc2": ("mlp.fc2",),
}


def read_checkpoint(folder: Path, sizes: ModelSizes) -> dict[str, Tensor]:
    """Return the state of a model of these sizes, in fp32.

    Raises:
        ValueError: The folder holds no such checkpoint.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"{folder} holds no checkpoint: {path.name} is missing.")
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    try:
        return _state(tensors, sizes)
    except KeyError as error:
        raise ValueError(f"{path} is no checkpoint of the demo: it lacks {error}.") from error


def _state(tensors: dict[str, Tensor], sizes: ModelSizes) -> dict[str, Tensor]:
    state = {
        "decoder.embedding": tensors[f"{_DECODER}embed_tokens.weight"],
        "decoder.norm": tensors[f"{_DECODER}norm.weight"],
        "decoder.head": tensors["language_model.lm_head.weight"],
        "vision.class_embedding": tensors[f"{_VISION}embeddings.class_embedding"],
        "vision.patch_embedding": tensors[f"{_VISION}embeddings.patch_embedding.weight"].flatten(1),
        "vision.position_embedding": tensors[f"{_VISION}embeddings.position_embedding.weight"],
        "vision.pre_norm_gain": tensors[f"{_VISION}pre_layrnorm.weight"],
        "vision.pre_norm_bias": tensors[f"{_VISION}pre_layrnorm.bias"],
    }
    for number in (1, 2):
        linear = f"multi_modal_projector.linear_{number}"
        state[f"vision.projector{number}"] = tensors[f"{linear}.weight"]
        state[f"vision.projector{number}_bias"] = tensors[f"{linear}.bias"]
    for name, parts in _DECODER_LAYER.items():
        layers = [f"{_DECODER}layers.{layer}" for layer in range(sizes.layers)]
        state[f"decoder.{name}"] = _stacked(tensors, layers, parts, "weight")
    for name, parts in _VISION_LAYER.items():
        layers = [f"{_VISION}encoder.layers.{layer}" for layer in range(sizes.vision_layers)]
        gain = "_gain" if name.startswith("norm") else ""
        state[f"vision.{name}{gain}"] = _stacked(tensors, layers, parts, "weight")
        state[f"vision.{name}_bias"] = _stacked(tensors, layers, parts, "bias")
    return state


def _stacked(
    tensors: dict[str, Tensor], layers: Iterable[str], parts: tuple[str, ...], kind: str
) -> Tensor:
    """Stack the layers, `[L, ...]`, and within each its parts where there are several."""
    if len(parts) == 1:
        return torch.stack([tensors[f"{layer}.{parts[0]}.{kind}"] for layer in layers])
    return torch.stack(
        [torch.stack([tensors[f"{layer}.{part}.{kind}"] for part in parts]) for layer in layers]
    )
