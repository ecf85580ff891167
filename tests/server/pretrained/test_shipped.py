"""What ships of the pretrained models: whole, named for what it is, and as good as it says."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from skipserve.model.weights import weights_digest
from skipserve.pretrained.joining import TRAINED_WEIGHTS, WEIGHTS
from skipserve.pretrained.packed_masks import PACKED_MASKS, read_packed
from skipserve.pretrained.places import (
    BASES,
    CHECKSUMS,
    PRETRAINED,
    RECORD,
    SMOLVQA,
    cache_folder,
    is_current,
    trained_folder,
)
from skipserve_policies.named import load_policies
from skipserve_policies.quality import QUALITY_FILE, load_measured
from skipserve_policies.resolve import resolve
from skipserve_policies.sizes import ModelSizes

pytestmark = pytest.mark.fast

MODULE = "multi_modal_projector.queries"
HALF_BLOCKS, WANDA = BASES
WHOLE = [name for name in PRETRAINED if name not in BASES]


def record_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((trained_folder(name) / RECORD).read_text())
    return found


def card_of(name: str) -> str:
    return " ".join((trained_folder(name) / "README.md").read_text().split())


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@pytest.mark.parametrize("name", PRETRAINED)
def test_checksums_check(name: str) -> None:
    folder = trained_folder(name)
    command = ["sha256sum", "--check", "--quiet", CHECKSUMS]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0
    summed = {line.split("  ")[1] for line in (folder / CHECKSUMS).read_text().splitlines()}
    assert summed == {path.name for path in folder.iterdir()} - {CHECKSUMS}


@pytest.mark.parametrize("name", PRETRAINED)
def test_only_what_was_trained_ships(name: str) -> None:
    weights = trained_folder(name) / TRAINED_WEIGHTS
    assert weights.stat().st_size < 10_000_000
    with safe_open(weights, "pt") as tensors:
        names = set(tensors.keys())
    parts = (
        {"multi_modal_projector"} if name in BASES else {"vision_tower", "multi_modal_projector"}
    )
    assert {name.split(".")[0] for name in names} == parts
    assert (MODULE in names) == (BASES.get(name, name) == SMOLVQA)


@pytest.mark.parametrize("name", WHOLE)
def test_the_configuration_says_how_many_rows_a_picture_is(name: str) -> None:
    config = json.loads((trained_folder(name) / "config.json").read_text())
    expected = ("skipserve_llava", 10) if name == SMOLVQA else ("llava", 100)
    assert (config["model_type"], config["image_seq_length"]) == expected
    assert config["image_token_index"] == 16
    assert config["text_config"]["num_hidden_layers"] == 30


@pytest.mark.parametrize("name", WHOLE)
def test_the_card_names_what_it_is_and_what_the_blind_reach(name: str) -> None:
    card = card_of(name)
    for said in ("4-bit weights", "dequantised", "trained on easy-VQA's labels", "One seed"):
        assert said in card
    for score in record_of(name)["held_out"].values():
        assert percent(score["accuracy"]) in card
        assert percent(score["blind"]) in card


@pytest.mark.parametrize("name", WHOLE)
def test_what_was_reached(name: str) -> None:
    held_out = record_of(name)["held_out"]
    assert held_out["all"]["n"] == 9673
    assert held_out["all"]["accuracy"] >= 0.97
    assert min(score["accuracy"] for score in held_out.values()) >= 0.93


# --- those that go on from another


@pytest.mark.parametrize("name", BASES)
def test_a_model_that_goes_on_brings_the_other_s_modules_place_and_no_more(name: str) -> None:
    own, base = (load_file(trained_folder(it) / TRAINED_WEIGHTS) for it in (name, BASES[name]))
    module = {key: value for key, value in base.items() if key.startswith("multi_modal_projector.")}
    assert {key: (it.dtype, it.shape) for key, it in own.items()} == {
        key: (it.dtype, it.shape) for key, it in module.items()
    }
    assert any(not torch.equal(own[key], value) for key, value in module.items())
    described = {"config.json", "processor_config.json", "chat_template.jinja"}
    assert not described & {path.name for path in trained_folder(name).iterdir()}


def test_half_of_the_blocks_go_where_a_request_names_no_policy() -> None:
    named = load_policies(trained_folder(HALF_BLOCKS))
    assert (named.default, list(named.of_model)) == ("half-blocks", ["half-blocks"])
    half = resolve("half-blocks", named.by_name["half-blocks"], 30)
    assert half.layers == {"skip_block": tuple(range(2, 29, 2))}
    trained = record_of(HALF_BLOCKS)["job"]["policy"]["rules"]
    assert half.policy.model_dump(mode="json", by_alias=True, exclude_defaults=True)["rules"] == [
        rule | {"layers": rule["layers"] | {"interval": [rule["layers"]["interval"]]}}
        for rule in trained
    ]
    assert load_policies(trained_folder(WANDA)).default == "full"


def masked_shapes() -> dict[str, torch.Size]:
    """Return the shapes of all linear layers of the language model's blocks."""
    config = json.loads((trained_folder(SMOLVQA) / "config.json").read_text())
    sizes = ModelSizes.from_config(config).decoder
    wide, narrow = sizes.hidden_size, config["text_config"]["num_key_value_heads"] * 64
    ffn = config["text_config"]["intermediate_size"]
    shapes = {
        **dict.fromkeys(("self_attn.q_proj", "self_attn.o_proj"), (wide, wide)),
        **dict.fromkeys(("self_attn.k_proj", "self_attn.v_proj"), (narrow, wide)),
        **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (ffn, wide)),
        "mlp.down_proj": (wide, ffn),
    }
    return {
        f"language_model.model.layers.{layer}.{name}.weight": torch.Size(shape)
        for layer in range(sizes.num_layers)
        for name, shape in shapes.items()
    }


def test_exactly_half_of_each_row_goes() -> None:
    shapes = masked_shapes()
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    removed = 0
    names = set()
    for name, keeps in read_packed(trained_folder(WANDA) / PACKED_MASKS, weights):
        names.add(name)
        assert keeps.shape == shapes[name]
        assert (keeps.sum(1) == keeps.shape[1] // 2).all(), name
        removed += int((~keeps).sum())
    assert names == shapes.keys()
    report = json.loads((trained_folder(WANDA) / "compression.json").read_text())["report"]
    assert (removed, report["considered"]) == (report["removed"], 2 * removed)
    assert report["sparsity"] == 0.5
    assert f"{removed:,} of {2 * removed:,} weights" in card_of(WANDA)


@pytest.mark.parametrize("name", BASES)
def test_the_card_says_what_was_measured_beside_the_other_model(name: str) -> None:
    folder = trained_folder(name)
    found = json.loads((folder / QUALITY_FILE).read_text())
    baseline, default = found["baseline"], load_policies(folder).default
    assert (baseline["model"], baseline["policy"]) == (BASES[name], "full")
    record = record_of(name)
    assert found["model_digest"] == record["weights_sha256"]
    sources = [record["model_sha256"]]
    if name == WANDA:
        sources += [
            json.loads((folder / "compression.json").read_text())["model"]["weights_sha256"]
        ]
    assert baseline["model_digest"] == sources[-1]
    score, card = found["policies"][default], card_of(name)
    assert score["n"] == found["policies"]["full"]["n"] == baseline["n"] >= 1000
    interval = f"({100 * score['low']:.1f}-{100 * score['high']:.1f})"
    assert f"| **all** | **{percent(score['accuracy'])}** {interval} |" in card
    kept = f"({100 * score['retention_low']:.1f}-{100 * score['retention_high']:.1f})"
    assert f"**{percent(score['retention'])} is kept {kept}**" in card
    for kind, of_kind in score["types"].items():
        if kind not in ("yes/no positive", "yes/no negated"):
            cells = (percent(of_kind["accuracy"]), percent(of_kind["majority"]), of_kind["n"])
            assert f"| {kind} | {' | '.join(map(str, cells))} |" in card
    for said in ("4-bit weights", "dequantised", "trained on easy-VQA's labels", "One seed"):
        assert said in card
    if default != "full":
        assert f"{percent(score['flops_saved'])} of the FLOPs" in card
        full = found["policies"]["full"]["accuracy"]
        assert f"under `full` it answers {percent(full)} of the questions" in card


def test_half_of_the_blocks_keep_what_the_card_says() -> None:
    """And not what `full` reaches on a module that was not trained for it."""
    folder = trained_folder(HALF_BLOCKS)
    named = load_policies(folder)
    half = resolve(named.default, named.by_name[named.default], 30)
    (quality,) = load_measured(folder, HALF_BLOCKS)[half.digest]
    assert quality.value > 95
    assert quality.full == 100.0
    assert quality.source.endswith(f"full is {SMOLVQA}'s")


@pytest.mark.parametrize("name", BASES)
def test_what_is_fetched_has_the_weights_that_were_trained(name: str) -> None:
    folder: Path = cache_folder() / name
    if not is_current(folder, name):
        pytest.skip(f"skipserve fetch {name}")
    assert weights_digest(folder) == record_of(name)["weights_sha256"]
    if name != WANDA:
        return
    tensors = load_file(folder / WEIGHTS)
    for linear, keeps in read_packed(trained_folder(name) / PACKED_MASKS, tensors):
        assert torch.equal(tensors[linear] == 0, ~keeps), linear
