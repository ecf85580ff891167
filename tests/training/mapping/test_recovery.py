"""A module that is trained on under a policy: scored before and after, stopped, gone on, served."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from recorded_engine import CPU, RecordedEngine
from safetensors.torch import load_file
from typer.testing import CliRunner

from skipserve.model.config import ModelConfig
from skipserve_policies.named import POLICIES_FILE, load_policies
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import resolve_for
from skipserve_policies.schema import SkipPolicy
from skipserve_training.commands import train
from skipserve_training.mapping import recovery
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.recovery import RecoveryJob, recover, write_default
from skipserve_training.mapping.served import open_model
from skipserve_training.mapping.sources import read_source

POLICIES = """
lighter:
  rules:
    - {action: skip_ffn, layers: [0], scope: all}
fewer:
  rules:
    - {action: drop_visual, method: vtw, before: 1}
"""
RULES = {"rules": [{"action": "skip_ffn", "layers": [0], "scope": "all"}]}


def _run(*flags: object) -> tuple[int, str]:
    result = CliRunner().invoke(train, ["recover", *map(str, flags)])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    return path


@pytest.fixture
def job(served_folder: Path, easy_folder: Path) -> RecoveryJob:
    return RecoveryJob(
        model=str(served_folder), data=f"easy-vqa:{easy_folder}", policy_name="lighter",
        policy=RULES, questions=60, pictures=2, warmup=1, save_every=2, views=2,
    )  # fmt: skip


@pytest.mark.fast
def test_a_module_is_trained_on_and_served(
    served_folder: Path, easy_folder: Path, policies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, said = _run(
        "--model", served_folder, "--data", f"easy-vqa:{easy_folder}", "--questions", 40, "--out",
        out, "--policies", policies, "--policy", "lighter", "--held-out", 10, "--pictures", 2,
        "--views", 1, "--warmup", 0, "--rate", 0.01,
    )  # fmt: skip
    assert code == 0, said
    assert "before, under lighter" in said
    assert "after, under lighter" in said
    record = json.loads((out / "training-record.json").read_text())
    assert record["before"]["all"]["n"] == record["after"]["all"]["n"] == 10
    lessons = read_source(f"easy-vqa:{easy_folder}")
    assert record["recipe"]["steps"] == -(-40 // (2 * lessons.questions_a_step))
    assert record["job"]["policy"]["rules"][0]["action"] == "skip_ffn"
    assert "/" not in record["job"]["model"]
    old, new = (
        load_file(folder / "model.safetensors") for folder in (served_folder, out / "checkpoint")
    )
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"multi_modal_projector"}
    trained = load_file(out / "projector.safetensors")
    assert all(torch.equal(new[name], value) for name, value in trained.items())
    assert "`lighter`" in (out / "checkpoint" / "README.md").read_text()
    named = load_policies(out / "checkpoint")
    assert (named.default, list(named.of_model)) == ("lighter", ["lighter"])
    assert [it.model_dump() for it in named.of_model["lighter"].rules] == [
        it.model_dump() for it in SkipPolicy.model_validate(RULES).rules
    ]
    RecordedEngine(out / "checkpoint")


@pytest.mark.fast
def test_what_it_was_trained_under_is_its_default(tmp_path: Path) -> None:
    rules = SkipPolicy.model_validate(RULES)
    write_default(tmp_path, "visual-freeze-from-16", rules)
    named = load_policies(tmp_path)
    assert (named.default, named.of_model) == ("visual-freeze-from-16", {})
    write_default(tmp_path, "lighter", rules)
    assert load_policies(tmp_path).of_model == {"lighter": rules}
    write_default(tmp_path, "full", SkipPolicy())
    assert not (tmp_path / POLICIES_FILE).exists()


@pytest.mark.fast
def test_a_policy_that_the_model_brings_is_trained_under(
    served_folder: Path, easy_folder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(served_folder, tmp_path / "model")
    write_default(model, "lighter", SkipPolicy.model_validate(RULES))

    def trained(policy: str) -> tuple[int, str]:
        return _run(
            "--model", model, "--data", f"easy-vqa:{easy_folder}", "--questions", 1, "--held-out",
            1, "--pictures", 1, "--views", 1, "--warmup", 0, "--out", tmp_path / policy,
            "--policy", policy,
        )  # fmt: skip

    assert "the nearest: lighter" in trained("lightest")[1]
    for policy in ("lighter", "full"):
        code, said = trained(policy)
        assert code == 0, said
        assert load_policies(tmp_path / policy / "checkpoint").default == policy


class StoppedError(Exception):
    """Someone interrupted the training."""


def _recover(job: RecoveryJob, out: Path, stop_at: int | None = None) -> recovery.Recovery:
    def watch(stage: str, done: int, total: int, loss: float) -> None:
        if stage == "training" and done == stop_at:
            raise StoppedError

    return recover(job, out, CPU, watch, out.parent / "features")


@pytest.mark.fast
def test_an_interrupted_training_goes_on(job: RecoveryJob, tmp_path: Path) -> None:
    whole = _recover(job, tmp_path / "whole")
    with pytest.raises(StoppedError):
        _recover(job, tmp_path / "parts", stop_at=3)
    before = (tmp_path / "parts" / "before.json").stat().st_mtime_ns
    resumed = _recover(job, tmp_path / "parts")
    assert (tmp_path / "parts" / "before.json").stat().st_mtime_ns == before
    assert (resumed.before, resumed.after) == (whole.before, whole.after)
    one, two = (load_file(tmp_path / it / "projector.safetensors") for it in ("whole", "parts"))
    assert all(torch.equal(one[name], value) for name, value in two.items())
    again = _recover(job, tmp_path / "parts")
    assert again.after == resumed.after


@pytest.mark.fast
def test_it_is_trained_under_the_policy(job: RecoveryJob, tmp_path: Path) -> None:
    """Another policy makes another module of the same lessons."""
    other = {"rules": [{"action": "skip_attention", "layers": [0], "scope": "all"}]}
    jobs = {"lighter": job, "other": RecoveryJob(**(vars(job) | {"policy": other}))}
    for name, each in jobs.items():
        _recover(each, tmp_path / name)
    one, two = (load_file(tmp_path / name / "projector.safetensors") for name in jobs)
    assert any(not torch.equal(one[name], value) for name, value in two.items())


@pytest.mark.fast
def test_another_module_is_trained_on(job: RecoveryJob, tmp_path: Path) -> None:
    _recover(job, tmp_path / "first")
    later = RecoveryJob(**(vars(job) | {"module": str(tmp_path / "first")}))
    second = _recover(later, tmp_path / "second")
    first = json.loads((tmp_path / "first" / "training-record.json").read_text())
    assert second.before["all"].accuracy == first["after"]["all"]["accuracy"]
    record = json.loads((tmp_path / "second" / "training-record.json").read_text())
    assert record["job"]["module"] == "first"


@pytest.mark.fast
def test_zeros_stay_zeros_and_are_told_of(
    job: RecoveryJob, served_folder: Path, tmp_path: Path
) -> None:
    flags = ["--method", "random", "--sparsity", "0.5", "--out", str(tmp_path / "halved")]
    result = CliRunner().invoke(train, ["compress", "--model", str(served_folder), *flags])
    assert result.exit_code == 0, result.output
    halved = tmp_path / "halved" / "checkpoint"
    _recover(RecoveryJob(**(vars(job) | {"model": str(halved)})), tmp_path / "run")
    old, new = (
        load_file(folder / "model.safetensors") for folder in (halved, tmp_path / "run/checkpoint")
    )
    masks = load_file(tmp_path / "halved" / "masks.safetensors")
    assert all(torch.equal(new[name], old[name]) for name in masks)
    assert all(not new[name][~mask].any() for name, mask in masks.items())
    card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert card.startswith("# halved, its module trained on")
    assert "had been set to zero: `compression.json`" in card
    assert (tmp_path / "run" / "checkpoint" / "compression.json").is_file()


@pytest.mark.fast
def test_a_folder_belongs_to_one_training(job: RecoveryJob, tmp_path: Path) -> None:
    _recover(job, tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        _recover(RecoveryJob(**(vars(job) | {"seed": 21})), tmp_path)


@pytest.mark.fast
def test_questions_are_counted_in_steps(job: RecoveryJob, served_folder: Path) -> None:
    lessons = read_source(job.data)
    assert isinstance(lessons, EasyLessons)
    assert lessons.questions_a_step == 10
    projector = open_model(served_folder, torch.float32, CPU).projector
    recipe = RecoveryJob(**(vars(job) | {"questions": 8000, "pictures": 3})).recipe
    assert recipe(lessons, projector).steps == 267
    assert (
        recipe(read_source(job.data.replace("-vqa", "-vqa-captions", 1)), projector).steps == 2667
    )


@pytest.mark.fast
def test_a_plan_is_the_servers(served_folder: Path) -> None:
    sizes = ModelConfig.from_folder(served_folder).sizes
    policy = SkipPolicy.model_validate(RULES)
    plan = recovery.static_plan("lighter", policy, sizes.decoder.num_layers)
    assert plan == resolve_for("lighter", policy, sizes).plan
    assert plan.cell(1, TokenClass.TEXT).is_idle  # trimmed: nothing reads it


@pytest.mark.fast
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--policy", "lightr"], "policy: 'lightr' is unknown; the nearest: lighter"),
        (["--policy", "fewer"], "policy: 'fewer' takes rows of images away"),
        (["--policy", "skip-block-every-3-from-0-all"], "touches none of the model's 2 layers"),
        (["--policy", "lighter", "--from", "/nowhere"], "/nowhere holds no trained module"),
        (["--policy", "lighter", "--model", "/nowhere"], "there is no model folder /nowhere"),
        (["--policy", "lighter", "--data", "coco"], "expected FORM:FOLDER"),
    ],
)
def test_bad_options_are_named(
    flags: list[str],
    said: str,
    served_folder: Path,
    easy_folder: Path,
    policies: Path,
    tmp_path: Path,
) -> None:
    command = ["--model", served_folder, "--data", f"easy-vqa:{easy_folder}", "--questions", 10]
    code, output = _run(*command, "--policies", policies, "--out", tmp_path / "run", *flags)
    assert code == 2
    assert said in output
    assert not (tmp_path / "run").exists()  # the folder is free for the right options
