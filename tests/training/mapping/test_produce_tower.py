"""A tower by the command."""

import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from skipserve_training.commands import train
from skipserve_training.mapping.encoders import TransformersEncoder


def test_a_tower_and_its_record(easy_folder: Path, tmp_path: Path) -> None:
    command = ["tower", "--easy-vqa", str(easy_folder), "--out", str(tmp_path), "--steps", "1"]
    result = CliRunner().invoke(train, command)
    assert result.exit_code == 0, result.output
    assert "Pictures of the test split: 3" in result.output
    record = json.loads((tmp_path / "checkpoint" / "training-record.json").read_text())
    assert record["held_out"]["n"] == 3
    assert record["recipe"]["sizes"]["patch"] == 8
    assert TransformersEncoder(tmp_path / "checkpoint", torch.device("cpu")).digest
    missing = CliRunner().invoke(train, [*command[:2], str(tmp_path), *command[3:]])
    assert missing.exit_code == 2
