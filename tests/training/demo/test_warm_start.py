"""A run that begins behind a checkpoint's stages: what it takes over, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from skipserve.pretrained.places import RECORD
from skipserve_training.demo.export import export
from skipserve_training.demo.model import DemoModel, ModelSizes
from skipserve_training.demo.ranks import Ranks
from skipserve_training.demo.recipe import Recipe, StageName
from skipserve_training.demo.run_folder import StageFolder, StageSummary
from skipserve_training.demo.tokenizer import train_tokenizer
from skipserve_training.demo.training import train
from skipserve_training.demo.warm_start import begin_after, read_predecessor

pytestmark = pytest.mark.fast

DONE = (StageName.VISION, StageName.SYMBOLIC, StageName.END_TO_END, StageName.FINAL)


@pytest.fixture
def source(recipe: Recipe, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    torch.manual_seed(1)
    export(DemoModel(ModelSizes(recipe.vocabulary, 4)), train_tokenizer(recipe.vocabulary), folder)
    first = replace(recipe, stages=recipe.stages[: len(DONE)], held_out_questions=7)
    stages = [StageSummary(name, 2, 3, 1.0, 2.0, 0.5, {}) for name in DONE]
    record = {"recipe": asdict(first), "stages": [asdict(stage) for stage in stages]}
    (folder / RECORD).write_text(json.dumps(record))
    return folder


def _begun(source: Path, recipe: Recipe, path: Path) -> StageFolder:
    folder = StageFolder(path)
    begin_after(read_predecessor(source), recipe, folder)
    return folder


def test_only_the_later_stages_run_and_the_summaries_tell_of_all(
    source: Path, recipe: Recipe, tmp_path: Path
) -> None:
    folder = _begun(source, recipe, tmp_path / "run")
    seen: list[str] = []
    train(
        recipe,
        folder,
        Ranks(),
        torch.device("cpu"),
        lambda stage, step, loss: seen.append(stage.name),
    )
    later = [stage.name for stage in recipe.stages[len(DONE) :]]
    assert list(dict.fromkeys(seen)) == later
    assert [summary.name for summary in folder.summaries()] == list(StageName)
    origin = folder.origin()
    assert origin is not None
    assert origin.stages == DONE
    assert len(origin.weights_sha256) == 64


def test_it_begins_with_the_checkpoints_weights(
    source: Path, recipe: Recipe, tmp_path: Path
) -> None:
    begun = _begun(source, recipe, tmp_path / "run").load()
    assert begun is not None
    assert (begun.stage, begun.step, begun.optimizers) == (len(DONE), 0, [])
    torch.manual_seed(1)
    expected = DemoModel(ModelSizes(recipe.vocabulary, 4)).state_dict()
    for name, value in expected.items():
        assert torch.equal(begun.model[name], value.bfloat16().float()), name


def test_a_run_that_has_begun_goes_on(source: Path, recipe: Recipe, tmp_path: Path) -> None:
    folder = _begun(source, recipe, tmp_path / "run")
    begun = folder.load()
    assert begun is not None
    folder.save(replace(begun, step=2))
    again = _begun(source, recipe, tmp_path / "run").load()
    assert again is not None
    assert again.step == 2


def test_a_run_that_began_elsewhere_is_refused(
    source: Path, recipe: Recipe, tmp_path: Path
) -> None:
    vision_only = replace(recipe, stages=recipe.stages[:1])
    train(vision_only, StageFolder(tmp_path / "run"), Ranks(), torch.device("cpu"))
    with pytest.raises(ValueError, match="did not begin from"):
        _begun(source, recipe, tmp_path / "run")


def _change_seed(record: dict[str, Any]) -> None:
    record["recipe"]["seed"] = 1


def _change_steps(record: dict[str, Any]) -> None:
    record["recipe"]["stages"][1]["steps"] = 7


@pytest.mark.parametrize(
    ("change", "named"), [(_change_seed, "seed"), (_change_steps, r"stages\[1\]\.steps")]
)
def test_another_recipe_is_refused(
    change: Callable[[dict[str, Any]], None],
    named: str,
    source: Path,
    recipe: Recipe,
    tmp_path: Path,
) -> None:
    record = json.loads((source / RECORD).read_text())
    change(record)
    (source / RECORD).write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"another recipe: {named} differ"):
        _begun(source, recipe, tmp_path / "run")


def test_a_finished_checkpoint_leaves_nothing_to_do(
    source: Path, recipe: Recipe, tmp_path: Path
) -> None:
    shorter = replace(recipe, stages=recipe.stages[: len(DONE)])
    with pytest.raises(ValueError, match="nothing is left to train"):
        _begun(source, shorter, tmp_path / "run")


def test_another_tokenizer_is_refused(source: Path, recipe: Recipe, tmp_path: Path) -> None:
    train_tokenizer(300).save(str(source / "tokenizer.json"))
    with pytest.raises(ValueError, match="another tokenizer"):
        _begun(source, recipe, tmp_path / "run")


@pytest.mark.parametrize("text", [None, "no JSON", "{}", '{"stages": [{"name": "x"}]}'])
def test_what_is_no_record_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / RECORD).write_text(text)
    with pytest.raises(ValueError, match=rf"{RECORD} is no record of a demo's training"):
        read_predecessor(tmp_path)
