"""Writes a checkpoint that the server loads anew, with some of its tensors changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from skipserve.model.weights import canonical_name, weight_files
from skipserve.pretrained.joining import OF_ONE_MODEL

COMPRESSION_RECORD = "compression.json"  # what was zeroed, which stays true of whatever follows

# Called with a tensor's name, as `canonical_name` tells it, and the tensor.
ChangeFunction = Callable[[str, Tensor], Tensor]


def rewrite(source: Path, folder: Path, change: ChangeFunction) -> None:
    """Copy a checkpoint file by file, each tensor as `change` returns it.

    Descriptions and tokenizer are copied; what was measured of the old one is not.

    Raises:
        ModelFilesError: The source has no readable weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = weight_files(source)
    for file in weights:
        tensors = {
            name: change(canonical_name(name), value).contiguous()
            for name, value in load_file(file).items()
        }
        save_file(tensors, folder / file.name, {"format": "pt"})
        (folder / file.name).chmod(0o644)  # it is written for its owner only
    for path in source.iterdir():
        if path.is_file() and path.name not in OF_ONE_MODEL and path.suffix != ".safetensors":
            shutil.copyfile(path, folder / path.name)
