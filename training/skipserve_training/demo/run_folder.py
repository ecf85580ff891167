"""The files of a run: a checkpoint to resume from, a log of losses, a summary of each stage."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from skipserve_training.demo.recipe import Recipe


class RecipeMismatchError(ValueError):
    """A run folder was started with another recipe."""


@dataclass(frozen=True)
class StageSummary:
    """What one finished stage took and reached."""

    name: str
    layers: int
    steps: int
    wall_seconds: float
    cpu_seconds: float  # of all processes
    loss: float
    shares: dict[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stands: `step` steps of stage number `stage` are done."""

    stage: int
    step: int
    wall_seconds: float  # spent in this stage so far
    cpu_seconds: float
    model: dict[str, Any]
    optimizers: list[dict[str, Any]]


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def claim(self, recipe: Recipe) -> None:
        """Note the recipe at the first call, and refuse another one later.

        Raises:
            RecipeMismatchError: The folder holds a run of another recipe.
        """
        wanted = json.dumps(asdict(recipe), indent=2) + "\n"
        path = self.path / "recipe.json"
        if path.exists() and path.read_text() != wanted:
            raise RecipeMismatchError(
                f"{self.path} holds a run of another recipe ({path}): "
                "give another --out, or the options that it was started with."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted)

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; a crash leaves the old or the new one, never half of one."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / "checkpoint.pt.new"
        torch.save(vars(checkpoint), draft)
        os.replace(draft, self._checkpoint)

    def load(self) -> Checkpoint | None:
        """Return the last checkpoint, if there is one."""
        if not self._checkpoint.exists():
            return None
        return Checkpoint(**torch.load(self._checkpoint, map_location="cpu", weights_only=True))

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to the log of losses."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "log.jsonl").open("a") as lines:
            lines.write(json.dumps(entry) + "\n")

    def add_summary(self, summary: StageSummary) -> None:
        """Record a finished stage, in place of an earlier record of the same one."""
        summaries = [old for old in self.summaries() if old.name != summary.name]
        entries = [asdict(entry) for entry in (*summaries, summary)]
        self._summaries.write_text(json.dumps(entries, indent=2) + "\n")

    def summaries(self) -> list[StageSummary]:
        """Return the finished stages."""
        if not self._summaries.exists():
            return []
        return [StageSummary(**entry) for entry in json.loads(self._summaries.read_text())]

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def _summaries(self) -> Path:
        return self.path / "stages.json"
