"""Joins what was trained with a language model: a folder that the server loads."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from skipserve.pretrained.places import CHECKSUMS

TRAINED_WEIGHTS = "trained.safetensors"


def join(trained: Path, language_model: Path, folder: Path) -> None:
    """Make a whole model of what was trained and the language model's weights and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"language_model.{name}": value
        for path in sorted(language_model.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }
    weights = folder / "model.safetensors"
    save_file(tensors | load_file(trained / TRAINED_WEIGHTS), weights, {"format": "pt"})
    weights.chmod(0o644)  # it is written for its owner only
    for path in (*language_model.glob("tokenizer*"), *trained.iterdir()):
        if path.is_file() and path.name not in (TRAINED_WEIGHTS, CHECKSUMS):
            shutil.copyfile(path, folder / path.name)
