"""Trains the small tower on easy-VQA's pictures."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skipserve_client.evaluate.easy_vqa import EasySplit
from skipserve_training.mapping.tower import (
    LabelledTower,
    Pictures,
    TowerSizes,
    label,
    tower_loss,
    vary,
)
from skipserve_training.run_folder import Clock, RunFolder

_LOG_EVERY = 50
_SAVE_EVERY = 100


@dataclass(frozen=True)
class TowerRecipe:
    """The whole training of a tower; equal recipes on equal hardware make equal towers."""

    steps: int = 1500
    batch: int = 64
    rate: float = 1e-3
    last_share: float = 0.02  # of the rate, where the cosine ends
    warmup: int = 100
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    sizes: TowerSizes = field(default_factory=TowerSizes)
    seed: int = 20

    def rate_at(self, step: int) -> float:
        """Return the rate of a step, from 0."""
        cosine = (1 + math.cos(math.pi * step / self.steps)) / 2
        decayed = self.last_share + (1 - self.last_share) * cosine
        return self.rate * min(1.0, (step + 1) / self.warmup) * decayed


@dataclass(frozen=True)
class TowerCheckpoint:
    """Where a training stands: `step` steps are done."""

    step: int
    wall_seconds: float
    cpu_seconds: float
    model: dict[str, Any]
    optimizer: dict[str, Any]
    draw: Tensor  # the state of the generator
    order: Tensor
    place: int


def load_pictures(split: EasySplit) -> Pictures:
    """Read all pictures of a split with what their questions tell of them."""
    known = split.attributes()
    images = sorted(split.images)
    pixels = [torch.from_numpy(np.array(split.load(image))) for image in images]
    return label(
        torch.stack(pixels).permute(0, 3, 1, 2).contiguous() / 255,
        [known[image] for image in images],
    )


def train_tower(
    recipe: TowerRecipe,
    pictures: Pictures,
    folder: RunFolder[TowerCheckpoint],
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[LabelledTower, Clock]:
    """Train a tower, or go on where its folder says that it stands."""
    torch.manual_seed(recipe.seed)
    tower = LabelledTower(recipe.sizes)
    run = _Run(recipe, pictures, tower)
    start = folder.load()
    clock = Clock(start.wall_seconds, start.cpu_seconds) if start else Clock()
    if start is not None:
        run.restore(start)
    for step in range(start.step if start else 0, recipe.steps):
        loss = run.step(step)
        done = step + 1
        progress(done, loss)
        if done % _LOG_EVERY == 0:
            folder.log({"step": done, "loss": loss})
        if done % _SAVE_EVERY == 0 or done == recipe.steps:
            folder.save(run.checkpoint(done, clock))
    return tower.eval(), clock


class _Run:
    """A training under way: the tower, its optimizer, and which pictures come next."""

    def __init__(self, recipe: TowerRecipe, pictures: Pictures, tower: LabelledTower) -> None:
        self._recipe = recipe
        self._pictures = pictures
        self._tower = tower
        self._draw = torch.Generator().manual_seed(recipe.seed)
        self._optimizer = torch.optim.AdamW(
            tower.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )
        self._order = self._shuffle()
        self._place = 0

    def step(self, step: int) -> float:
        """Take one step of the optimizer; returns the loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.rate_at(step)
        pictures = self._next()
        pictures = pictures._replace(pixels=vary(pictures.pixels, self._draw))
        with torch.autocast("cpu", torch.bfloat16):
            loss = tower_loss(self._tower, pictures)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._tower.parameters(), self._recipe.clip_norm)
        self._optimizer.step()
        return loss.item()

    def checkpoint(self, done: int, clock: Clock) -> TowerCheckpoint:
        """Say where it stands."""
        return TowerCheckpoint(
            done,
            clock.wall(),
            clock.cpu(),
            self._tower.state_dict(),
            self._optimizer.state_dict(),
            self._draw.get_state(),
            self._order,
            self._place,
        )

    def restore(self, start: TowerCheckpoint) -> None:
        """Go back to where it stood."""
        self._tower.load_state_dict(start.model)
        self._optimizer.load_state_dict(start.optimizer)
        self._draw.set_state(start.draw)
        self._order, self._place = start.order, start.place

    def _next(self) -> Pictures:
        """Take the next batch; an epoch's last pictures that fill none are left out."""
        end = self._place + self._recipe.batch
        if end > len(self._order):
            self._order, self._place = self._shuffle(), 0
            end = self._recipe.batch
        rows = self._order[self._place : end]
        self._place = end
        return self._pictures.take(rows)

    def _shuffle(self) -> Tensor:
        return torch.randperm(len(self._pictures.pixels), generator=self._draw)
