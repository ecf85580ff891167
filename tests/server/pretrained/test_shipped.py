"""What ships of the pretrained models: whole, named for what it is, and as good as it says."""

import json
import subprocess

import pytest
from safetensors import safe_open

from skipserve.pretrained.joining import TRAINED_WEIGHTS
from skipserve.pretrained.places import PRETRAINED, SMOLVQA, trained_folder

pytestmark = pytest.mark.fast

MODULE = "multi_modal_projector.queries"


@pytest.mark.parametrize("name", PRETRAINED)
def test_checksums_check(name: str) -> None:
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=trained_folder(name), check=False).returncode == 0


@pytest.mark.parametrize("name", PRETRAINED)
def test_only_what_was_trained_ships(name: str) -> None:
    weights = trained_folder(name) / TRAINED_WEIGHTS
    assert weights.stat().st_size < 10_000_000
    with safe_open(weights, "pt") as tensors:
        names = set(tensors.keys())
    assert {name.split(".")[0] for name in names} == {"vision_tower", "multi_modal_projector"}
    assert (MODULE in names) == (name == SMOLVQA)


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_configuration_says_how_many_rows_a_picture_is(name: str) -> None:
    config = json.loads((trained_folder(name) / "config.json").read_text())
    expected = ("skipserve_llava", 10) if name == SMOLVQA else ("llava", 100)
    assert (config["model_type"], config["image_seq_length"]) == expected
    assert config["image_token_index"] == 16
    assert config["text_config"]["num_hidden_layers"] == 30


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_card_names_what_it_is_and_what_the_blind_reach(name: str) -> None:
    card = (trained_folder(name) / "README.md").read_text()
    for said in ("4-bit weights", "dequantised", "trained on easy-VQA's labels", "One seed"):
        assert said in card
    held_out = json.loads((trained_folder(name) / "training-record.json").read_text())["held_out"]
    for score in held_out.values():
        shown = f"{score['accuracy']:.1%}".replace("%", " %")
        blind = f"{score['blind']:.1%}".replace("%", " %")
        assert shown in card
        assert blind in card


@pytest.mark.parametrize("name", PRETRAINED)
def test_what_was_reached(name: str) -> None:
    record = json.loads((trained_folder(name) / "training-record.json").read_text())
    held_out = record["held_out"]
    assert held_out["all"]["n"] == 9673
    assert held_out["all"]["accuracy"] >= 0.97
    assert min(score["accuracy"] for score in held_out.values()) >= 0.93
