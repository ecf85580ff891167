"""From nothing to a checkpoint with a record, small."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skipserve_training.demo import produce as produce_module
from skipserve_training.demo.produce import produce
from skipserve_training.demo.recipe import Recipe

EXPECTED_FILES = {
    "SHA256SUMS",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training-record.json",
}


def test_a_checkpoint_comes_with_its_record(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(produce_module, "_CPU_RANKS", 1)
    monkeypatch.setattr("skipserve_training.demo.training.can_compile", lambda device: False)
    short = replace(recipe.scaled(0), held_out_questions=16)
    product = produce(short, tmp_path, torch.device("cpu"), lambda stage, step, loss: None)
    assert {path.name for path in product.checkpoint.iterdir()} == EXPECTED_FILES
    record = json.loads((product.checkpoint / "training-record.json").read_text())
    assert record["seed"] == recipe.seed
    assert record["steps"] == 6
    assert record["began_from"] is None
    assert record["wall_seconds"] > 0
    assert record["held_out"]["n"] == product.held_out.n == 16
    assert set(record["held_out"]["types"]) == set(product.held_out.types)
    assert record["types_too_near_their_majority"]  # six steps teach nothing
    cosines = record["neighbour_cosines"]
    assert cosines["others"] < 0.1 < cosines["siblings"]
    assert record["versions"]["torch"] == torch.__version__
