"""Loads what an encoder takes: a picture, a video as a folder of frames, a sound."""

import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from skipserve.errors import UnusableImageError
from skipserve.media.frames import pick_frames
from skipserve.media.wav import open_wav
from skipserve_policies.sizes import FRAMES_SHOWN
from skipserve_training.mapping.lessons import Media, Sound

_SOUND = ".wav"
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


def load_media(path: Path) -> Media:
    """Load a picture, eight frames of a folder of frames, or a sound at its own rate.

    Raises:
        ValueError: The file cannot be read, or the folder has too few frames.
    """
    try:
        if path.is_dir():
            return _frames(path)
        return _sound(path) if path.suffix.lower() == _SOUND else _picture(path)
    except (OSError, UnidentifiedImageError, UnusableImageError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def find_media(folder: Path) -> dict[int, Path]:
    """Find media by the last number in their names: COCO_train2014_000000000009.jpg is 9.

    Raises:
        ValueError: There is no such folder, or two media have one number.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: expected the pictures, frames or sounds in it.")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        number = _LAST_NUMBER.search(path.stem)
        if number is None:
            continue
        other = found.setdefault(int(number[1]), path)
        if other != path:
            raise ValueError(f"{other.name} and {path.name} in {folder} have the same number.")
    return found


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _frames(folder: Path) -> list[Image.Image]:
    """Take frames at equal distances, in the order of their names."""
    frames = sorted(folder.iterdir())
    if len(frames) < FRAMES_SHOWN:
        raise ValueError(f"{folder} has {len(frames)} frames: expected at least {FRAMES_SHOWN}.")
    return [_picture(frames[index]) for index in pick_frames(len(frames), FRAMES_SHOWN)]


def _sound(path: Path) -> Sound:
    """Read several channels as their mean."""
    sound = open_wav(path.read_bytes())
    return Sound(sound.samples(), sound.rate)
