"""Keeps what a frozen encoder says of each medium on disk: it is computed once."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from skipserve_training.mapping.encoders import FrozenEncoder
from skipserve_training.mapping.lessons import Media

_BATCH = 32


class FeatureMismatchError(ValueError):
    """A file of features was made of other media, or by another encoder."""


class Features:
    """Features of all media, `[N, P, d_vis]`, bf16, read from disk as they are asked for."""

    def __init__(self, rows: NDArray[np.int16]) -> None:
        self._rows = rows

    @property
    def num_patches(self) -> int:
        """Return P."""
        return int(self._rows.shape[1])

    @property
    def width(self) -> int:
        """Return d_vis."""
        return int(self._rows.shape[2])

    def __len__(self) -> int:
        """Return N."""
        return len(self._rows)

    def take(self, indexes: Sequence[int]) -> Tensor:
        """Read some, `[B, P, d_vis]`."""
        return torch.from_numpy(self._rows[list(indexes)]).view(torch.bfloat16)


def compute_features(
    path: Path,
    encoder: FrozenEncoder,
    count: int,
    load: Callable[[int], Media],
    progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Encode `count` media into `path`, from where an earlier call stopped; one process at a time.

    Raises:
        FeatureMismatchError: The file holds the features of other media or another encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        _fill(path, encoder, count, load, progress)
    return Features(np.load(path, mmap_mode="r"))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process writes to a file of features."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(
    path: Path,
    encoder: FrozenEncoder,
    count: int,
    load: Callable[[int], Media],
    progress: Callable[[int], None],
) -> None:
    notes = path.with_suffix(".json")
    wanted = {"encoder": encoder.digest, "media": count}
    done = _done(notes, wanted, path)
    while done < count:
        media = [load(index) for index in range(done, min(done + _BATCH, count))]
        encoded = encoder.encode(media).to(torch.bfloat16).cpu()
        rows = _open(path, (count, *encoded.shape[1:]))
        rows[done : done + len(media)] = encoded.view(torch.int16).numpy()
        rows.flush()  # before it is noted as done
        done += len(media)
        _note(notes, wanted | {"done": done})
        progress(done)


def _open(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.int16]]:
    mode = "r+" if path.exists() else "w+"
    return open_memmap(path, mode=mode, dtype=np.int16, shape=shape)


def _done(notes: Path, wanted: dict[str, object], path: Path) -> int:
    if not notes.exists():
        path.unlink(missing_ok=True)
        return 0
    found = json.loads(notes.read_text())
    done = int(found.pop("done"))
    if found != wanted:
        raise FeatureMismatchError(
            f"{path} holds features of {found}, and not of {wanted}: give another folder, or "
            "remove it."
        )
    return done


def _note(notes: Path, entry: dict[str, object]) -> None:
    draft = notes.with_suffix(".new")
    draft.write_text(json.dumps(entry) + "\n")
    os.replace(draft, notes)
