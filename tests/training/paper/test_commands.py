"""`skipserve train paper`: what is listed, chosen, and refused."""

from pathlib import Path

import pytest
from paper_records import CELLS, make_record
from typer.testing import CliRunner

from skipserve_training.commands import train
from skipserve_training.paper.records import write

pytestmark = pytest.mark.fast


def _paper(*flags: object) -> tuple[int, str]:
    result = CliRunner().invoke(train, ["paper", *map(str, flags)])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def test_cells_are_listed_with_what_they_take(tmp_path: Path) -> None:
    write(make_record(CELLS["ladder-20"], 1), tmp_path)
    code, said = _paper("--list", "--only", "ladder-*", "--records", tmp_path)
    assert code == 0
    assert "done ladder-20" in said
    assert "3 min ladder-10" in said
    assert said.endswith("3 min of one core, for 1 cells")


def test_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    write(make_record(CELLS["ladder-20"], 1), tmp_path)
    code, said = _paper("--only", "ladder-20", "--records", tmp_path)
    assert code == 0
    assert said.startswith("0 of 1 cells have no record yet")


def test_bad_options_are_named(tmp_path: Path) -> None:
    code, said = _paper("--only", "nothing-*", "--records", tmp_path)
    assert code == 2
    assert "only is 'nothing-*': no cell is called so" in said


def test_a_model_that_was_not_fetched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, said = _paper("--only", "full", "--records", tmp_path)
    assert code == 2
    assert "smolvqa is not here yet" in said
    assert list(tmp_path.glob("*.json")) == []
