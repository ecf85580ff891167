"""Writes a checkpoint that the server loads anew, with some of its tensors changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from skipserve.model.weights import canonical_name, weight_files
from skipserve.pretrained.joining import OF_ONE_MODEL
from skipserve_training.mapping.export import link, save_weights

COMPRESSION_RECORD = "compression.json"  # what was zeroed, which stays true of whatever follows

# Called with a tensor's name, as `canonical_name` tells it, and the tensor.
ChangeFunction = Callable[[str, Tensor], Tensor]


def rewrite(source: Path, folder: Path, change: ChangeFunction) -> None:
    """Copy a checkpoint file by file, each tensor as `change` returns it.

    A file of weights of which nothing changes gets a second name. Descriptions and tokenizer are
    copied; what was measured of the old one is not.

    Raises:
        ModelFilesError: The source has no readable weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = weight_files(source)
    for file in weights:
        old = load_file(file)
        tensors = {name: change(canonical_name(name), value) for name, value in old.items()}
        if all(value is old[name] for name, value in tensors.items()):
            link(file, folder / file.name)
        else:
            kept = {name: value.contiguous() for name, value in tensors.items()}
            save_weights(kept, folder / file.name)
    for path in source.iterdir():
        if path.is_file() and path.name not in OF_ONE_MODEL and path.suffix != ".safetensors":
            shutil.copyfile(path, folder / path.name)
