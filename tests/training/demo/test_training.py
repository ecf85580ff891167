"""The stages in order, interruptions, and several processes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rank_worker import write_average

from skipserve_training.demo.model import DemoModel
from skipserve_training.demo.ranks import Ranks, started
from skipserve_training.demo.recipe import Recipe, StageName, StageRecipe
from skipserve_training.demo.run_folder import StageFolder
from skipserve_training.demo.training import learning_rate_share, train, train_rank

CPU = torch.device("cpu")


class InterruptedRunError(Exception):
    """Stands for a kill."""


def _states_are_equal(one: DemoModel, other: DemoModel) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.fast
def test_all_stages_run_and_leave_their_files(recipe: Recipe, tmp_path: Path) -> None:
    seen: list[tuple[StageName, int]] = []
    train(
        recipe, StageFolder(tmp_path), Ranks(), CPU, lambda s, step, _: seen.append((s.name, step))
    )
    assert seen == [(name, step) for name in StageName for step in (1, 2, 3)]
    summaries = StageFolder(tmp_path).summaries()
    assert [summary.name for summary in summaries] == list(StageName)
    assert all(summary.cpu_seconds > 0 and summary.steps == 3 for summary in summaries)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3] * len(StageName)


@pytest.mark.parametrize("stop_after", [2, 6, 10, 16])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    stop_after: int, recipe: Recipe, tmp_path: Path
) -> None:
    done = 0

    def stop(stage: StageRecipe, step: int, loss: float) -> None:
        nonlocal done
        done += 1
        if done > stop_after:
            raise InterruptedRunError

    whole = train(recipe, StageFolder(tmp_path / "whole"), Ranks(), CPU)
    with pytest.raises(InterruptedRunError):
        train(recipe, StageFolder(tmp_path / "parts"), Ranks(), CPU, stop)
    seen: list[int] = []
    resumed = train(
        recipe,
        StageFolder(tmp_path / "parts"),
        Ranks(),
        CPU,
        lambda s, step, loss: seen.append(step),
    )
    assert len(seen) < 18
    assert _states_are_equal(whole, resumed)


@pytest.mark.fast
def test_a_finished_run_only_loads(recipe: Recipe, tmp_path: Path) -> None:
    first = train(recipe, StageFolder(tmp_path), Ranks(), CPU)
    seen: list[int] = []
    again = train(
        recipe, StageFolder(tmp_path), Ranks(), CPU, lambda s, step, loss: seen.append(step)
    )
    assert not seen
    assert _states_are_equal(first, again)


@pytest.mark.fast
def test_the_seed_decides(recipe: Recipe, tmp_path: Path) -> None:
    short = replace(recipe.scaled(0), seed=1)
    models = [
        train(replace(short, seed=seed), StageFolder(tmp_path / str(number)), Ranks(), CPU)
        for number, seed in enumerate((1, 1, 2))
    ]
    assert _states_are_equal(models[0], models[1])
    assert not _states_are_equal(models[0], models[2])


@pytest.mark.fast
def test_rates_rise_and_fall(recipe: Recipe) -> None:
    stage = replace(recipe.stages[0], steps=100, warmup=10, final_share=0.2)
    shares = [learning_rate_share(stage, step) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == pytest.approx(1 - 0.8 * 9 / 100)
    assert shares[-1] == pytest.approx(1 - 0.8 * 99 / 100)


def test_two_processes_average(tmp_path: Path) -> None:
    with started(2, write_average, tmp_path) as ranks:
        write_average(ranks, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    for path in tmp_path.iterdir():
        assert path.read_text() == "[[0.5, 0.5], [5.0]]"


def test_two_processes_train_one_model(recipe: Recipe, tmp_path: Path) -> None:
    vision_only = replace(recipe, stages=recipe.stages[:1])
    with started(2, train_rank, vision_only, tmp_path / "two", CPU) as ranks:
        two = train(vision_only, StageFolder(tmp_path / "two"), ranks, CPU)
    one = train(vision_only, StageFolder(tmp_path / "one"), Ranks(), CPU)
    for name, value in one.state_dict().items():
        assert torch.allclose(value, two.state_dict()[name], atol=0.02), name


@pytest.mark.fast
def test_one_process_needs_no_group() -> None:
    with started(1, write_average) as ranks:
        tensor = torch.tensor([3.0])
        ranks.average([tensor])
        assert (ranks.rank, tensor.item()) == (0, 3.0)
