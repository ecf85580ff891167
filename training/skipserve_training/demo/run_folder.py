"""What the demo's run folder holds besides: its stages' checkpoint and summaries, its origin."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skipserve_training.run_folder import RunFolder


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
    optimizers: list[dict[str, Any]]  # none where the stage begins from another run's model


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a run began from, and the stages that had made it."""

    weights_sha256: str
    stages: tuple[str, ...]


class StageFolder(RunFolder[Checkpoint]):
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Checkpoint)

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

    def note_origin(self, origin: Origin) -> None:
        """Record what the run began from."""
        self._origin.write_text(json.dumps(asdict(origin), indent=2) + "\n")

    def origin(self) -> Origin | None:
        """Return what the run began from, or None where it began from nothing."""
        if not self._origin.exists():
            return None
        entry = json.loads(self._origin.read_text())
        return Origin(entry["weights_sha256"], tuple(entry["stages"]))

    @property
    def _origin(self) -> Path:
        return self.path / "origin.json"

    @property
    def _summaries(self) -> Path:
        return self.path / "stages.json"
