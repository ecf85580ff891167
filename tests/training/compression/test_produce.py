"""A whole compression by the command: the engine serves what it writes as torch computes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoder_subject import assert_close
from PIL import Image
from recorded_engine import CPU, RecordedEngine
from safetensors.torch import load_file, save_file
from tiny_llava import Naming, make_checkpoint
from torch import Tensor
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

from skipserve.model.config import ModelConfig
from skipserve_policies.plan import Plan, trim
from skipserve_training.commands import train
from skipserve_training.mapping.served import open_model

TEXT = (7, 8, 9)


def _compress(*flags: object) -> str:
    result = CliRunner().invoke(train, ["compress", *map(str, flags)])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def _refused(*flags: object) -> str:
    result = CliRunner().invoke(train, ["compress", *map(str, flags)])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.replace("│", " ").split())


def _dense_logits(served: Path, masks: Path, pixels: Any, answer: list[int]) -> Tensor:
    """Mask the language model that the checkpoint was made of, and run it in transformers."""
    model: Any = LlamaForCausalLM.from_pretrained(served.parent / "language", dtype=torch.float32)
    for name, mask in load_file(masks).items():
        model.get_parameter(name.removeprefix("language_model.")).data *= mask
    parts = open_model(served, torch.float32, CPU)
    with torch.inference_mode():
        picture = parts.projector(parts.encoder.encode([Image.fromarray(pixels)]))
        text = model.get_input_embeddings()(torch.tensor([[*TEXT, *answer[:-1]]]))
        logits: Tensor = model(inputs_embeds=torch.cat((picture, text), dim=1)).logits[0]
    return logits[-len(answer) :]


@pytest.mark.fast
@pytest.mark.parametrize(
    "flags",
    [
        ("--method", "wanda", "--sparsity", "0.5"),
        ("--method", "wanda", "--pattern", "2:4", "--part", "ffn"),
        ("--method", "alpha-subnet", "--sparsity", "0.3"),
    ],
    ids=" ".join,
)
def test_what_is_served_is_the_masked_model(
    flags: tuple[str, ...], served_folder: Path, easy_folder: Path, tmp_path: Path
) -> None:
    tasks = ["--task", f"easy-vqa:{easy_folder}", "--media", "4"]
    if "alpha-subnet" in flags:
        tasks += ["--task", f"easy-vqa-captions:{easy_folder}"]
    _compress("--model", served_folder, "--out", tmp_path, *flags, *tasks)
    engine = RecordedEngine(tmp_path / "checkpoint")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    answer, logits = engine.answer(pixels.tobytes(), TEXT, trim(Plan.full(2)), 4)
    expected = _dense_logits(served_folder, tmp_path / "masks.safetensors", pixels, answer)
    assert_close(logits, expected)
    _, dense = RecordedEngine(served_folder).answer(pixels.tobytes(), TEXT, trim(Plan.full(2)), 4)
    assert (dense[0] - logits[0]).abs().max() > 0.01 * dense.abs().max()


@pytest.mark.fast
def test_the_checkpoint_says_what_was_done(
    served_folder: Path, easy_folder: Path, tmp_path: Path
) -> None:
    command = ("--model", served_folder, "--out", tmp_path, "--sparsity", "0.5", "--media", "4")
    said = _compress(*command, "--task", f"easy-vqa:{easy_folder}")
    record = json.loads((tmp_path / "checkpoint" / "compression.json").read_text())
    report = record["report"]
    assert f"Zeroed {report['removed']:,} of {report['considered']:,} weights (50.00%)" in said
    masks = load_file(tmp_path / "masks.safetensors")
    old = load_file(served_folder / "model.safetensors")
    new = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert new.keys() == old.keys()
    for name, value in old.items():
        kept = masks.get(name, torch.ones((), dtype=torch.bool))
        assert torch.equal(new[name], value * kept), name
        assert new[name].dtype == value.dtype
    assert report["removed"] == sum(int((~mask).sum()) for mask in masks.values())
    assert record["model"]["name"] == "small"
    assert record["weights_sha256"] != record["model"]["weights_sha256"]
    assert "/" not in json.dumps(record["tasks"])
    card = (tmp_path / "checkpoint" / "README.md").read_text()
    for words in ("Wanda", "a share of 0.5", "4 media", "50.00%", "FLOPs dense", "an output row"):
        assert words in card
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    left_out = {"skip-quality.json"}
    assert names == {it.name for it in served_folder.iterdir()} - left_out | {"compression.json"}


@pytest.mark.fast
def test_flops_are_those_of_the_dense_model(served_folder: Path, tmp_path: Path) -> None:
    _compress(
        "--model", served_folder, "--out", tmp_path, "--method", "random", "--sparsity", "0.7"
    )
    sizes = [
        ModelConfig.from_folder(folder).sizes for folder in (served_folder, tmp_path / "checkpoint")
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.fast
@pytest.mark.parametrize("naming", Naming)
def test_masks_fit_whatever_the_checkpoint_calls_its_tensors(
    naming: Naming, tmp_path: Path
) -> None:
    source = make_checkpoint(tmp_path / "source", naming=naming, num_shards=2)
    flags = ("--model", source, "--sparsity", "0.5")
    _compress(*flags, "--method", "magnitude", "--out", tmp_path / "one")
    masks = tmp_path / "one" / "masks.safetensors"
    _compress(
        "--model", source, "--method", "mask", "--mask-file", masks, "--out", tmp_path / "two"
    )
    for file in sorted(source.glob("*.safetensors")):
        one, two = (load_file(tmp_path / it / "checkpoint" / file.name) for it in ("one", "two"))
        assert all(torch.equal(one[name], two[name]) for name in load_file(file))
    zeros = sum(
        int((value == 0).sum())
        for file in (tmp_path / "one" / "checkpoint").glob("*.safetensors")
        for value in load_file(file).values()
    )
    assert zeros == sum(int((~mask).sum()) for mask in load_file(masks).values()) > 0
    RecordedEngine(tmp_path / "two" / "checkpoint")


@pytest.mark.fast
def test_a_folder_belongs_to_one_compression(served_folder: Path, tmp_path: Path) -> None:
    command = ("--model", served_folder, "--out", tmp_path, "--method", "magnitude", "--sparsity")
    _compress(*command, "0.5")
    _compress(*command, "0.5")
    assert "another recipe" in _refused(*command, "0.6")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "wander", "--sparsity", "0.5"], "'wander' is not a valid Method"),
        (["--sparsity", "0.5", "--pattern", "2:4"], "sparsity and pattern: give one of the two"),
        (["--method", "random"], "'random' zeroes needs one"),
        (["--sparsity", "50"], "sparsity is 50.0: expected a share between 0 and 1"),
        (["--pattern", "4:2"], "The pattern is 4:2: expected N:M"),
        (["--sparsity", "0.5"], "'wanda' takes one calibration, and was given 0"),
        (["--sparsity", "0.5", "--task", "coco"], "expected FORM:FOLDER"),
        (["--sparsity", "0.5", "--model", "/nowhere"], "there is no model folder /nowhere"),
        (["--method", "mask"], "mask_file: the method 'mask' needs one"),
        (["--method", "mask", "--mask-file", "/nowhere"], "The masks /nowhere cannot be read"),
        (["--method", "random", "--pattern", "3:7"], "The pattern 3:7 does not fit rows of 32"),
    ],
)
def test_bad_options_are_named(
    flags: list[str], said: str, served_folder: Path, tmp_path: Path
) -> None:
    assert said in _refused("--model", served_folder, "--out", tmp_path, *flags)
    assert not any(tmp_path.iterdir())  # the folder is free for the right options


@pytest.mark.fast
def test_a_mask_that_fits_no_weight_is_named(served_folder: Path, tmp_path: Path) -> None:
    name = "language_model.model.layers.9.mlp.up_proj.weight"
    save_file({name: torch.ones(2, 2, dtype=torch.bool)}, tmp_path / "masks.safetensors")
    flags = ("--method", "mask", "--mask-file", tmp_path / "masks.safetensors")
    said = _refused("--model", served_folder, "--out", tmp_path / "out", *flags)
    assert f"{name} is no weight" in said
    assert not (tmp_path / "out").exists()
