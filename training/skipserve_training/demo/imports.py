"""Reads a checkpoint that `export` wrote back into the parameters of a model."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from skipserve_training.demo import published_names as names
from skipserve_training.demo.model import ModelSizes


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
        "decoder.embedding": tensors[f"{names.DECODER}embed_tokens.weight"],
        "decoder.norm": tensors[f"{names.DECODER}norm.weight"],
        "decoder.head": tensors[names.HEAD],
        "vision.class_embedding": tensors[f"{names.VISION}embeddings.class_embedding"],
        "vision.patch_embedding": tensors[
            f"{names.VISION}embeddings.patch_embedding.weight"
        ].flatten(1),
        "vision.position_embedding": tensors[f"{names.VISION}embeddings.position_embedding.weight"],
        "vision.pre_norm_gain": tensors[f"{names.VISION}pre_layrnorm.weight"],
        "vision.pre_norm_bias": tensors[f"{names.VISION}pre_layrnorm.bias"],
    }
    for number in (1, 2):
        state[f"vision.projector{number}"] = tensors[f"{names.PROJECTOR}{number}.weight"]
        state[f"vision.projector{number}_bias"] = tensors[f"{names.PROJECTOR}{number}.bias"]
    for name, parts in names.DECODER_LAYER.items():
        layers = [f"{names.DECODER}layers.{layer}" for layer in range(sizes.layers)]
        state[f"decoder.{name}"] = _stacked(tensors, layers, parts, "weight")
    for name, parts in names.VISION_LAYER.items():
        layers = [f"{names.VISION}encoder.layers.{layer}" for layer in range(sizes.vision_layers)]
        for kind in names.KINDS:
            state[names.vision_parameter(name, kind)] = _stacked(tensors, layers, parts, kind)
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
