"""What a run leaves on disk."""

from pathlib import Path

import pytest
import torch

from skipserve_training.demo.run_folder import (
    Checkpoint,
    Origin,
    StageFolder,
    StageSummary,
)

pytestmark = pytest.mark.fast


def _checkpoint(step: int) -> Checkpoint:
    return Checkpoint(1, step, 2.0, 3.0, {"w": torch.tensor([float(step)])}, [{"state": {}}])


def _summary(name: str, steps: int = 1) -> StageSummary:
    return StageSummary(name, 2, steps, 1.0, 2.0, 0.5, {"colour": 0.9})


def test_the_last_checkpoint_comes_back(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path / "run")
    assert folder.load() is None
    folder.save(_checkpoint(1))
    folder.save(_checkpoint(2))
    found = folder.load()
    assert found is not None
    assert (found.stage, found.step, found.model["w"].item()) == (1, 2, 2.0)


def test_summaries_replace_their_namesake(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    for summary in (_summary("vision"), _summary("symbolic"), _summary("vision", steps=9)):
        folder.add_summary(summary)
    assert folder.summaries() == [_summary("symbolic"), _summary("vision", steps=9)]


def test_a_run_knows_what_it_began_from(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path)
    assert folder.origin() is None
    folder.note_origin(Origin("ab" * 32, ("vision", "symbolic")))
    assert StageFolder(tmp_path).origin() == Origin("ab" * 32, ("vision", "symbolic"))
