"""Joins what was trained with what it goes on from: folders that the server loads."""

import shutil
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from skipserve.pretrained.packed_masks import PACKED_MASKS, read_packed
from skipserve.pretrained.places import CHECKSUMS, RECORD, STAMP
from skipserve_policies.named import POLICIES_FILE
from skipserve_policies.quality import QUALITY_FILE

TRAINED_WEIGHTS = "trained.safetensors"
WEIGHTS = "model.safetensors"

# What was measured of a model, or tells where it came from: none of it is true of one that goes on
# from it.
OF_ONE_MODEL = frozenset(("README.md", QUALITY_FILE, CHECKSUMS, STAMP, RECORD))


def join(trained: Path, language_model: Path, folder: Path) -> None:
    """Make a whole model of what was trained and the language model's weights and tokenizer."""
    tensors = {
        f"language_model.{name}": value
        for path in sorted(language_model.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }
    _write(tensors | load_file(trained / TRAINED_WEIGHTS), folder)
    _copy(language_model.glob("tokenizer*"), folder)
    _copy_trained(trained, folder)


def derive(trained: Path, base: Path, folder: Path) -> None:
    """Make a whole model of another one and of what differs.

    Args:
        trained: weights that take the place of the other's, which of the other's are zeroed, where
            it says so, and what is told of the new model.
        base: the other model, whole.
        folder: where to.
    """
    tensors = load_file(base / WEIGHTS) | load_file(trained / TRAINED_WEIGHTS)
    masks = trained / PACKED_MASKS
    if masks.is_file():
        for name, keeps in read_packed(masks, tensors):
            tensors[name] = tensors[name].masked_fill(~keeps, 0)
    _write(tensors, folder)
    _copy(base.iterdir(), folder, OF_ONE_MODEL | {WEIGHTS, POLICIES_FILE})
    _copy_trained(trained, folder)


def _write(tensors: Mapping[str, Tensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS
    save_file(dict(tensors), weights, {"format": "pt"})
    weights.chmod(0o644)  # it is written for its owner only


def _copy_trained(trained: Path, folder: Path) -> None:
    _copy(trained.iterdir(), folder, {TRAINED_WEIGHTS, PACKED_MASKS, CHECKSUMS})


def _copy(files: Iterable[Path], folder: Path, left_out: Container[str] = ()) -> None:
    for path in files:
        if path.is_file() and path.name not in left_out:
            shutil.copyfile(path, folder / path.name)
