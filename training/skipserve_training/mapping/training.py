"""Trains a projector between a frozen encoder's features and a frozen language model."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from skipserve_training.mapping.features import Features
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.lessons import LessonSource, PromptForm
from skipserve_training.mapping.packing import PICTURE, Batch, pack
from skipserve_training.mapping.projectors import Projector
from skipserve_training.mapping.recipe import MappingRecipe
from skipserve_training.run_folder import Clock, RunFolder

_LOG_EVERY = 20


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stands: `step` steps are done."""

    step: int
    wall_seconds: float
    cpu_seconds: float
    model: dict[str, Any]
    optimizer: dict[str, Any]


ProgressFunction = Callable[[int, float], None]


@dataclass(frozen=True)
class Course:
    """Everything frozen that a training stands on.

    Attributes:
        views: how many variants of each medium `features` hold: row `v * len(lessons) + i` is
            variant `v` of medium `i`.
    """

    language: FrozenLanguageModel
    lessons: LessonSource
    features: Features
    prompts: PromptForm
    views: int = 1

    def batch(self, indexes: Sequence[int], draw: random.Random) -> tuple[Tensor, Batch]:
        """Draw a view and questions for each medium; returns features and packed rows."""
        rows = [draw.randrange(self.views) * len(self.lessons) + index for index in indexes]
        examples = [
            [self.prompts.example(exchange) for exchange in self.lessons.exchanges(index, draw)]
            for index in indexes
        ]
        return self.features.take(rows), pack(examples)


@dataclass(frozen=True)
class Outcome:
    """A loss, and which examples a greedy answer would get right, with its end."""

    loss: Tensor
    is_right: Tensor  # [M], boolean
    kinds: Tensor  # [M]


def summarise(outcomes: Sequence[Outcome], kinds: Sequence[str]) -> dict[str, Any]:
    """Return the mean loss of some steps, and the share of right answers of each type."""
    is_right = torch.cat([outcome.is_right for outcome in outcomes])
    asked = torch.cat([outcome.kinds for outcome in outcomes])
    by_kind = {kind: is_right[asked == index] for index, kind in enumerate(kinds)}
    return {
        "loss": sum(outcome.loss.item() for outcome in outcomes) / len(outcomes),
        "right": {kind: some.float().mean().item() for kind, some in by_kind.items() if len(some)},
    }


def embed(
    language: FrozenLanguageModel, projector: nn.Module, features: Tensor, batch: Batch
) -> Tensor:
    """Embed packed rows, the projector's among them: `[B, T, d_llm]`."""
    projected = projector(features.float()).to(language.dtype)
    places = batch.ids == PICTURE
    rows = language.embed(batch.ids.masked_fill(places, 0))
    # A picture's rows follow each other: the first one's position tells the others' places.
    first = batch.positions.masked_fill(~places, batch.ids.shape[1]).amin(1)
    pictures = places.nonzero()[:, 0]
    return rows.index_put((places,), projected[pictures, batch.positions[places] - first[pictures]])


def answer(
    language: FrozenLanguageModel, projector: nn.Module, features: Tensor, batch: Batch
) -> Outcome:
    """Predict the answers' tokens, each after the right ones before it.

    That an answer is right token by token here means that greedy decoding gives it.
    """
    hidden = language.hidden(embed(language, projector, features, batch), batch)
    logits = language.logits(hidden.flatten(0, 1)[batch.rows])
    is_right = torch.ones(len(batch.kinds), device=logits.device)
    is_right = is_right.scatter_reduce(
        0, batch.examples, (logits.argmax(-1) == batch.targets).float(), "amin"
    )
    return Outcome(F.cross_entropy(logits, batch.targets), is_right > 0, batch.kinds)


def make_accelerator(device: torch.device) -> Accelerator:
    """Make what holds the processes together, in bf16; a process has one kind of it."""
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16")


def train(
    recipe: MappingRecipe,
    course: Course,
    projector: Projector,
    folder: RunFolder[Checkpoint],
    accelerator: Accelerator,
    progress: ProgressFunction = lambda step, loss: None,
) -> Clock:
    """Train a projector in place, or go on where its folder says that it stands.

    Returns:
        The clock that says what it took, interruptions left out.
    """
    optimizer = torch.optim.AdamW(
        projector.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
    )
    start = folder.load()
    clock = Clock(start.wall_seconds, start.cpu_seconds) if start else Clock()
    if start is not None:
        projector.load_state_dict(start.model)
        optimizer.load_state_dict(start.optimizer)
    run = _Run(recipe, course, accelerator, projector, optimizer)
    outcomes: list[Outcome] = []  # since the last line of the log
    for step in range(start.step if start else 0, recipe.steps):
        outcome = run.step(step)
        done = step + 1
        is_last = done == recipe.steps
        if not accelerator.is_main_process:
            continue
        outcomes.append(outcome)
        progress(done, outcome.loss.item())
        if done % _LOG_EVERY == 0 or is_last:
            folder.log({"step": done} | summarise(outcomes, course.lessons.kinds))
            outcomes.clear()
        if done % recipe.save_every == 0 or is_last:
            model, state = projector.state_dict(), optimizer.state_dict()
            folder.save(Checkpoint(done, clock.wall(), clock.cpu(), model, state))
    return clock


class _Run:
    """A training under way: what a step needs."""

    def __init__(
        self,
        recipe: MappingRecipe,
        course: Course,
        accelerator: Accelerator,
        projector: Projector,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._recipe = recipe
        self._course = course
        self._accelerator = accelerator
        # Of the epoch that is under way.
        self._orders: dict[int, list[int]] = {}
        self._projector, self._optimizer = accelerator.prepare(projector, optimizer)

    def step(self, step: int) -> Outcome:
        """Take one step of the optimizer."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.rate_at(step)
        draw = random.Random(f"{self._recipe.seed}/{step}/{self._accelerator.process_index}")
        features, batch = self._course.batch(self._indexes(step), draw)
        device = self._accelerator.device
        with self._accelerator.autocast():
            outcome = answer(
                self._course.language, self._projector, features.to(device), batch.to(device)
            )
        self._optimizer.zero_grad()
        self._accelerator.backward(outcome.loss * self._recipe.loss_scale)
        self._accelerator.clip_grad_norm_(self._projector.parameters(), self._recipe.clip_norm)
        self._optimizer.step()
        return replace(outcome, loss=outcome.loss.detach())

    def _indexes(self, step: int) -> list[int]:
        """Walk over all media in a new order each epoch; each process takes its own share."""
        count, pictures = len(self._course.lessons), self._recipe.pictures
        first, end = step * pictures, (step + 1) * pictures
        places = range(
            first + self._accelerator.process_index, end, self._accelerator.num_processes
        )
        return [self._order(place // count)[place % count] for place in places]

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            order = list(range(len(self._course.lessons)))
            random.Random(f"{self._recipe.seed}/order/{epoch}").shuffle(order)
            self._orders = {epoch: order}
        return self._orders[epoch]
