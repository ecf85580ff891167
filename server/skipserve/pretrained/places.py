"""Where the pretrained models lie: what ships in this package, and what is fetched beside it."""

import hashlib
from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path

SMOLVQA, SMOLVQA_PATCHES = "smolvqa", "smolvqa-patches"
PRETRAINED = (SMOLVQA, SMOLVQA_PATCHES)
EASY_VQA = "easy-vqa"
EASY_VQA_FOLDER = "easy-vqa-1.0"  # in the cache, where `skipserve evaluate` looks for it

CHECKSUMS = "SHA256SUMS"  # of what was trained, by itself
STAMP = "fetched-from.txt"  # what a folder was made of; a later version of it is fetched anew


def cache_folder() -> Path:
    """Return the folder that models are fetched into, `~/.cache/skipserve` on Linux."""
    return user_cache_path("skipserve")


def trained_folder(name: str) -> Path:
    """Return the folder of what was trained of a model, and ships."""
    return Path(str(files("skipserve"))) / "pretrained" / name


def trained_stamp(trained: Path) -> str:
    """Return what tells this training of a model from others: with it the stamp begins."""
    return hashlib.sha256((trained / CHECKSUMS).read_bytes()).hexdigest()


def is_current(folder: Path, name: str) -> bool:
    """Return whether a folder in the cache was made of what ships with this version."""
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text().startswith(trained_stamp(trained_folder(name)))
