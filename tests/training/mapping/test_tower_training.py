"""A tower learns, stops, and goes on as if it had not stopped."""

from pathlib import Path

import pytest
import torch

from skipserve_client.evaluate.easy_vqa import EasySplit
from skipserve_training.mapping import tower_training
from skipserve_training.mapping.tower import TowerSizes, score_tower
from skipserve_training.mapping.tower_training import (
    TowerCheckpoint,
    TowerRecipe,
    load_pictures,
    train_tower,
)
from skipserve_training.run_folder import RunFolder

SIZES = TowerSizes(hidden=32, ffn=48, layers=1, heads=1, side=32, patch=8)


class StoppedError(Exception):
    """Someone interrupted the training."""


def test_it_learns_eight_pictures(easy_split: EasySplit, tmp_path: Path) -> None:
    pictures = load_pictures(easy_split)
    recipe = TowerRecipe(steps=60, batch=8, rate=1e-2, warmup=5, sizes=SIZES)
    losses: list[float] = []
    tower, clock = train_tower(
        recipe, pictures, RunFolder(tmp_path, TowerCheckpoint), lambda _, loss: losses.append(loss)
    )
    assert losses[-1] < losses[0] / 2
    assert score_tower(tower, pictures).colour == 1.0
    assert clock.cpu() > 0
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 1


@pytest.mark.fast
def test_an_interrupted_training_goes_on(
    easy_split: EasySplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tower_training, "_SAVE_EVERY", 2)
    pictures = load_pictures(easy_split)
    recipe = TowerRecipe(steps=5, batch=3, sizes=SIZES)
    whole, _ = train_tower(recipe, pictures, RunFolder(tmp_path / "whole", TowerCheckpoint))

    def stop(step: int, loss: float) -> None:
        if step == 4:
            raise StoppedError

    parts = RunFolder(tmp_path / "parts", TowerCheckpoint)
    with pytest.raises(StoppedError):
        train_tower(recipe, pictures, parts, stop)
    resumed, _ = train_tower(recipe, pictures, parts)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
