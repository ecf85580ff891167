"""`skipserve train demo`: its options, its table, its refusals."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from skipserve_client.evaluate.scoring import GradedAnswer, score
from skipserve_training.commands import train
from skipserve_training.demo import produce as produce_module
from skipserve_training.demo.produce import Product
from skipserve_training.demo.recipe import Recipe, default_recipe
from skipserve_training.demo.training import ProgressFunction
from skipserve_training.demo.warm_start import Predecessor
from skipserve_training.devices import find_device

pytestmark = pytest.mark.fast


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    recipes: list[Recipe] = []

    def fake(
        recipe: Recipe,
        path: Path,
        device: torch.device,
        progress: ProgressFunction,
        predecessor: Predecessor | None,
    ) -> Product:
        recipes.append(recipe)
        progress(recipe.stages[0], 1, 0.5)
        return Product(path / "checkpoint", score([GradedAnswer("count", "1", "1")]))

    monkeypatch.setattr(produce_module, "produce", fake)
    return recipes


def test_the_command_reports_what_was_reached(made: list[Recipe], tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["demo", "--out", str(tmp_path), "--steps-scale", "0.5"])
    assert result.exit_code == 0, result.output
    assert made == [default_recipe().scaled(0.5)]
    assert "count" in result.output
    assert "100.0%" in result.output


def test_an_unknown_device_is_refused(made: list[Recipe], tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["demo", "--out", str(tmp_path), "--device", "tpu"])
    assert result.exit_code == 2
    assert not made
    assert "expected auto, cpu or cuda" in " ".join(result.output.split())


def test_stages_that_a_checkpoint_went_through_keep_their_steps(
    made: list[Recipe], tmp_path: Path
) -> None:
    stages = [{"name": "vision", "layers": 16, "steps": 2500, "loss": 0.1, "shares": {}}]
    seconds = {"wall_seconds": 1.0, "cpu_seconds": 2.0}
    record = {"recipe": {"stages": []}, "stages": [stage | seconds for stage in stages]}
    (tmp_path / "training-record.json").write_text(json.dumps(record))
    options = ["--out", str(tmp_path / "run"), "--steps-scale", "0.5", "--from", str(tmp_path)]
    result = CliRunner().invoke(train, ["demo", *options])
    assert result.exit_code == 0, result.output
    assert made == [default_recipe().scaled(0.5, first=1)]


def test_a_source_without_a_record_is_refused(made: list[Recipe], tmp_path: Path) -> None:
    result = CliRunner().invoke(train, ["demo", "--out", str(tmp_path), "--from", str(tmp_path)])
    assert result.exit_code == 2
    assert not made
    assert "is no record of a demo's training" in " ".join(result.output.split())


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="'gpu'"):
        find_device("gpu")
