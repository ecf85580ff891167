"""Where the pretrained models lie: what ships in this package, and what is fetched beside it."""

from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path

SMOLVQA, SMOLVQA_PATCHES = "smolvqa", "smolvqa-patches"
PRETRAINED = (SMOLVQA, SMOLVQA_PATCHES)
EASY_VQA = "easy-vqa"


def cache_folder() -> Path:
    """Return the folder that models are fetched into, `~/.cache/skipserve` on Linux."""
    return user_cache_path("skipserve")


def trained_folder(name: str) -> Path:
    """Return the folder of what was trained of a model, and ships."""
    return Path(str(files("skipserve"))) / "pretrained" / name
