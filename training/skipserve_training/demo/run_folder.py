"""What the demo's run folder holds besides: a checkpoint of several stages, a summary of each."""

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
    optimizers: list[dict[str, Any]]


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

    @property
    def _summaries(self) -> Path:
        return self.path / "stages.json"
