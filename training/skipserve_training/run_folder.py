"""The files of a run: its recipe, a checkpoint to resume from, and a log of losses."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch


class Dataclass(Protocol):
    """What `asdict` and `vars` take."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class RecipeMismatchError(ValueError):
    """A run folder was started with another recipe."""


C = TypeVar("C", bound=Dataclass)


def claim(folder: Path, recipe: Dataclass) -> None:
    """Note the recipe of a run at the first call, and refuse another one later.

    Raises:
        RecipeMismatchError: The folder holds a run of another recipe.
    """
    wanted = json.dumps(asdict(recipe), indent=2) + "\n"
    path = folder / "recipe.json"
    if path.exists() and path.read_text() != wanted:
        raise RecipeMismatchError(
            f"{folder} holds a run of another recipe ({path}): "
            "give another --out, or the options that it was started with."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(wanted)


class RunFolder(Generic[C]):
    """Reads and writes the files of one run, whose checkpoints are dataclasses of one type."""

    def __init__(self, path: Path, kind: type[C]) -> None:
        self.path = path
        self._kind = kind

    def save(self, checkpoint: C) -> None:
        """Replace the checkpoint; a crash leaves the old or the new one, never half of one."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / "checkpoint.pt.new"
        torch.save(vars(checkpoint), draft)
        os.replace(draft, self._checkpoint)

    def load(self) -> C | None:
        """Return the last checkpoint, if there is one."""
        if not self._checkpoint.exists():
            return None
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        return self._kind(**state)

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to the log of losses."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "log.jsonl").open("a") as lines:
            lines.write(json.dumps(entry) + "\n")

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"


class Clock:
    """Measures a training over its interruptions."""

    def __init__(self, wall_before: float = 0.0, cpu_before: float = 0.0) -> None:
        self._wall = time.monotonic() - wall_before
        self._cpu = time.process_time() - cpu_before

    def wall(self) -> float:
        """Return the seconds that went by while it ran."""
        return time.monotonic() - self._wall

    def cpu(self) -> float:
        """Return the seconds that this process computed."""
        return time.process_time() - self._cpu
