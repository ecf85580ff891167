"""What any run leaves on disk."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from skipserve_training.run_folder import Clock, RecipeMismatchError, RunFolder, claim

pytestmark = pytest.mark.fast


@dataclass(frozen=True)
class Standing:
    step: int


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder[Standing]:
    return RunFolder(tmp_path / "run", Standing)


def test_the_last_checkpoint_comes_back(folder: RunFolder[Standing]) -> None:
    assert folder.load() is None
    folder.save(Standing(1))
    folder.save(Standing(2))
    assert folder.load() == Standing(2)


def test_an_unfinished_checkpoint_is_not_seen(folder: RunFolder[Standing]) -> None:
    folder.save(Standing(1))
    (folder.path / "checkpoint.pt.new").write_bytes(b"half of one")
    assert folder.load() == Standing(1)


def test_a_folder_belongs_to_one_recipe(folder: RunFolder[Standing]) -> None:
    recipe = Standing(7)
    claim(folder.path, recipe)
    claim(folder.path, recipe)
    with pytest.raises(RecipeMismatchError, match="another recipe"):
        claim(folder.path, replace(recipe, step=8))


def test_lines_are_added_to_the_log(folder: RunFolder[Standing]) -> None:
    folder.log({"step": 1})
    folder.log({"step": 2})
    assert (folder.path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_clock_goes_on_from_where_it_stood() -> None:
    clock = Clock(100.0, 50.0)
    assert clock.wall() >= 100.0
    assert clock.cpu() >= 50.0
