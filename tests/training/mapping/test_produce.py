"""A whole training by the command: data, features, steps, score, files; stopped and gone on."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_language import make_opt, make_tokenizer, save_llama
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel
from typer.testing import CliRunner

from skipserve.model.weights import weight_files
from skipserve_training.commands import train
from skipserve_training.mapping.tower import LabelledTower, TowerSizes
from skipserve_training.mapping.tower_export import export_tower

SIZES = TowerSizes(hidden=32, ffn=48, layers=1, heads=1, side=32, patch=8)


@pytest.fixture(scope="module")
def arguments(easy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    torch.manual_seed(0)
    encoder = tmp_path_factory.mktemp("encoder")
    export_tower(LabelledTower(SIZES), encoder)
    llm = save_llama(tmp_path_factory.mktemp("llama"))
    parts = ["--llm", str(llm), "--encoder", str(encoder), "--layer", "-2", "--drop-class"]
    return ["mapping", "--data", f"easy-vqa:{easy_folder}", *parts, "--pictures", "2"]


def test_a_training_leaves_a_model_and_its_record(arguments: list[str], tmp_path: Path) -> None:
    command = [*arguments, "--out", str(tmp_path), "--steps", "2", "--views", "2"]
    result = CliRunner().invoke(train, command)
    assert result.exit_code == 0, result.output
    assert "negated, present" in result.output
    record = json.loads((tmp_path / "training-record.json").read_text())
    assert record["held_out"]["all"]["n"] == 18
    assert record["job"]["recipe"]["steps"] == 2
    assert "/" not in record["job"]["encoder"]
    files = {path.name for path in weight_files(tmp_path / "checkpoint")}
    assert files == {"language-00001.safetensors", "trained.safetensors"}
    trained = load_file(tmp_path / "trained" / "trained.safetensors")
    written = load_file(tmp_path / "projector.safetensors")
    assert all(torch.equal(trained[name], value) for name, value in written.items())
    again = CliRunner().invoke(train, command)
    assert again.exit_code == 0, again.output


@pytest.mark.fast
def test_a_folder_belongs_to_one_training(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    result = CliRunner().invoke(train, [*arguments, "--out", str(tmp_path), "--steps", "2"])
    assert result.exit_code == 2
    assert "another recipe" in " ".join(result.output.replace("│", " ").split())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--projector", "linear"], "'linear' is not a valid"),
        (["--data", "captions:/nowhere", "--views", "2"], "only easy-vqa has more than 1"),
        (["--data", "coco"], "expected FORM:FOLDER"),
        (["--llm", "/nowhere"], "/nowhere holds no language model"),
    ],
)
def test_bad_options_are_named(
    flags: list[str], said: str, arguments: list[str], tmp_path: Path
) -> None:
    command = [*arguments, "--out", str(tmp_path), "--steps", "2", *flags]
    result = CliRunner().invoke(train, command)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "recipe.json").exists()  # the folder is free for the right options


def test_captions_for_an_opt_and_a_vit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, llm, data = tmp_path / "vit", tmp_path / "opt", tmp_path / "data"
    config = ViTConfig(
        image_size=16, patch_size=8, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    ViTModel(config).save_pretrained(encoder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(encoder)
    make_opt().save_pretrained(llm)
    make_tokenizer().save_pretrained(llm)
    (data / "media").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(data / "media" / "1.png")
    captions = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [{"image_id": 1, "caption": "a dark square"}],
    }
    (data / "captions.json").write_text(json.dumps(captions))
    parts = ["--llm", str(llm), "--encoder", str(encoder), "--data", f"captions:{data}"]
    command = ["mapping", *parts, "--out", str(tmp_path / "run"), "--steps", "2", "--pictures", "1"]
    result = CliRunner().invoke(train, command)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "training-record.json").read_text())["held_out"] == {}
    names = set(load_file(tmp_path / "run" / "projector.safetensors"))
    assert "multi_modal_projector.to_llm.weight" in names
