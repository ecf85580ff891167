"""`skipserve train demo`: its options, its table, its refusals."""

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
from skipserve_training.devices import find_device

pytestmark = pytest.mark.fast


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    recipes: list[Recipe] = []

    def fake(
        recipe: Recipe, path: Path, device: torch.device, progress: ProgressFunction
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


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="'gpu'"):
        find_device("gpu")
