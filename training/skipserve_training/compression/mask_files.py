"""Files of masks: safetensors of booleans, True where a weight stays, by the weights' names."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

# By the name of the weight, as `FrozenLanguageModel.linears` tells it.
Masks = dict[str, Tensor]


def write_masks(masks: Masks, path: Path) -> None:
    """Write a file of masks; a crash leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, draft)
    os.replace(draft, path)


def read_masks(path: Path, shapes: Mapping[str, torch.Size]) -> Masks:
    """Read a file of masks for some or all of the weights that may be zeroed.

    Args:
        path: the file.
        shapes: of those weights, by name.

    Raises:
        ValueError: The file cannot be read, is empty, or a mask in it fits no weight; says which.
    """
    try:
        masks = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The masks {path} cannot be read as safetensors: {error}.") from error
    if not masks:
        raise ValueError(f"The masks {path} name no weight.")
    for name, mask in masks.items():
        _check(path, name, mask, shapes)
    return masks


def _check(path: Path, name: str, mask: Tensor, shapes: Mapping[str, torch.Size]) -> None:
    if name not in shapes:
        raise ValueError(
            f"The masks {path}: {name} is no weight that can be zeroed: expected names such as "
            f"{min(shapes)}."
        )
    if mask.dtype is not torch.bool or mask.shape != shapes[name]:
        kind = str(mask.dtype).removeprefix("torch.")
        raise ValueError(
            f"The masks {path}: {name} is {kind} of shape {list(mask.shape)}: expected bool of "
            f"shape {list(shapes[name])}."
        )
