"""What ships of a model that was trained on: with the other model it makes the very weights."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from recorded_engine import CPU, RecordedEngine
from safetensors.torch import load_file
from typer.testing import CliRunner

from skipserve.model.weights import weights_digest
from skipserve.pretrained.joining import derive
from skipserve_policies.named import load_policies
from skipserve_training.commands import train
from skipserve_training.mapping.recovery import RecoveryJob, recover

pytestmark = pytest.mark.fast

RULES = {"rules": [{"action": "skip_ffn", "layers": [0], "scope": "all"}]}


def _export(*flags: object) -> tuple[int, str]:
    result = CliRunner().invoke(train, ["export", *map(str, flags)])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def _recover(model: Path, easy_folder: Path, out: Path, policy: Mapping[str, object]) -> Path:
    job = RecoveryJob(
        model=str(model), data=f"easy-vqa:{easy_folder}", policy_name="run-7", policy=policy,
        questions=1, pictures=1, warmup=0, views=1, held_out=1, rate=0.01,
    )  # fmt: skip
    recover(job, out, CPU, lambda *_: None)
    return out


@pytest.fixture
def skipping(served_folder: Path, easy_folder: Path, tmp_path: Path) -> Path:
    """A run under a policy."""
    return _recover(served_folder, easy_folder, tmp_path / "skipping", RULES)


def test_a_module_and_its_policy_ship(skipping: Path, served_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "shipped"
    flags = ("--run", skipping, "--out", out, "--base", served_folder)
    code, said = _export(*flags, "--policy", "lighter", "--description", "Less.")
    assert code == 0, said
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("README.md", "SHA256SUMS", "skip-policies.yaml", "trained.safetensors"),
        "training-record.json",
    }
    named = load_policies(out)
    assert (named.default, named.of_model["lighter"].description) == ("lighter", "Less.")
    whole = tmp_path / "whole"
    derive(out, served_folder, whole)
    assert weights_digest(whole) == weights_digest(skipping / "checkpoint")
    RecordedEngine(whole)


def test_zeroed_weights_ship_as_masks(
    served_folder: Path, easy_folder: Path, tmp_path: Path
) -> None:
    flags = ["--model", str(served_folder), "--method", "random", "--sparsity", "0.5"]
    halved = tmp_path / "halved"
    assert CliRunner().invoke(train, ["compress", *flags, "--out", str(halved)]).exit_code == 0
    run = _recover(halved / "checkpoint", easy_folder, tmp_path / "run", {})
    out, masks = tmp_path / "shipped", halved / "masks.safetensors"
    asked = ("--run", run, "--out", out, "--base", served_folder)
    code, said = _export(*asked)
    assert (code, "or masks are missing or others'" in said) == (2, True)
    assert not (out / "SHA256SUMS").exists()
    code, said = _export(*asked, "--masks", masks)
    assert code == 0, said
    assert not (out / "skip-policies.yaml").exists()
    assert json.loads((out / "compression.json").read_text())["report"]["sparsity"] == 0.5
    whole = tmp_path / "whole"
    derive(out, served_folder, whole)
    assert weights_digest(whole) == weights_digest(run / "checkpoint")
    old, new = (load_file(it / "model.safetensors") for it in (served_folder, whole))
    for name, keeps in load_file(masks).items():
        assert torch.equal(new[name], old[name].masked_fill(~keeps, 0))


def test_what_people_write_stays_and_what_an_earlier_export_wrote_goes(
    skipping: Path, served_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shipped"
    flags = ("--run", skipping, "--out", out, "--base", served_folder)
    assert _export(*flags)[0] == 0
    assert load_policies(out).default == "run-7"
    (out / "README.md").write_text("my card")
    (out / "skip-quality.json").write_text("{}")
    (out / "packed-masks.safetensors").write_text("of another model")
    assert _export(*flags)[0] == 0
    assert (out / "README.md").read_text() == "my card"
    assert not (out / "packed-masks.safetensors").exists()
    sums = (out / "SHA256SUMS").read_text()
    assert all(f"  {name}\n" in sums for name in ("README.md", "skip-quality.json"))


def test_what_cannot_ship_is_told(skipping: Path, served_folder: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "shipped")
    told = _export("--run", tmp_path, *out, "--base", served_folder)[1]
    assert f"run: {tmp_path} holds no finished training" in told
    other = shutil.copytree(served_folder, tmp_path / "other")
    (other / "model.safetensors").unlink()
    told = _export("--run", skipping, *out, "--base", other)[1]
    assert "has no model.safetensors" in told
    masks = tmp_path / "masks.safetensors"
    masks.write_text("none")
    told = _export("--run", skipping, *out, "--base", served_folder, "--masks", masks)[1]
    assert "cannot be read as safetensors" in told
    assert not (tmp_path / "shipped" / "SHA256SUMS").exists()
