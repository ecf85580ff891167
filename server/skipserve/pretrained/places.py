"""Where the pretrained models lie: what ships in this package, and what is fetched beside it."""

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path

SMOLVQA, SMOLVQA_PATCHES = "smolvqa", "smolvqa-patches"
# Models that go on from another: what ships of them is what differs.
BASES = {"smolvqa-half-blocks": SMOLVQA, "smolvqa-wanda-50": SMOLVQA}
PRETRAINED = (SMOLVQA, SMOLVQA_PATCHES, *BASES)
EASY_VQA = "easy-vqa"
EASY_VQA_FOLDER = "easy-vqa-1.0"  # in the cache, where `skipserve evaluate` looks for it

CHECKSUMS = "SHA256SUMS"  # of what was trained, by itself
RECORD = "training-record.json"
STAMP = "fetched-from.txt"  # what a folder was made of; a later version of it is fetched anew


def cache_folder() -> Path:
    """Return the folder that models are fetched into, `~/.cache/skipserve` on Linux."""
    return user_cache_path("skipserve")


def trained_folder(name: str) -> Path:
    """Return the folder of what was trained of a model, and ships."""
    return Path(str(files("skipserve"))) / "pretrained" / name


def trained_folders(name: str) -> tuple[Path, ...]:
    """Return the folders of what ships of a model: its own, then the one's that it goes on from."""
    own = trained_folder(name)
    return (own, *trained_folders(BASES[name])) if name in BASES else (own,)


def trained_stamp(trained: Iterable[Path]) -> str:
    """Return what tells what a model was made of from others: with it the stamp begins."""
    return " ".join(hashlib.sha256((it / CHECKSUMS).read_bytes()).hexdigest() for it in trained)


def is_current(folder: Path, name: str) -> bool:
    """Return whether a folder in the cache was made of what ships with this version."""
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text().startswith(trained_stamp(trained_folders(name)))
