"""Runs the stages in order, each from where the run folder says it stands."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from skipserve_client.evaluate.scenes import Scene, Split, make_scene
from skipserve_training.demo.model import BlockFunction, DemoModel, ModelSizes, decoder_block, grow
from skipserve_training.demo.optimizer import make_optimizers, set_rates
from skipserve_training.demo.ranks import Ranks
from skipserve_training.demo.recipe import Recipe, StageRecipe
from skipserve_training.demo.rewording import emptied
from skipserve_training.demo.run_folder import Checkpoint, StageFolder, StageSummary
from skipserve_training.demo.stages import LOSSES, Lesson, make_lesson, trained_parameters
from skipserve_training.run_folder import Clock

_LOG_EVERY = 20
_CLIP_NORM = 1.0
_SCENES_PER_STAGE = 1 << 24  # no two stages see the same scene

ProgressFunction = Callable[[StageRecipe, int, float], None]


def train(
    recipe: Recipe,
    folder: StageFolder,
    ranks: Ranks,
    device: torch.device,
    progress: ProgressFunction = lambda stage, step, loss: None,
    run_block: BlockFunction = decoder_block,
) -> DemoModel:
    """Train a model, or go on where its folder says that it stands, and return it."""
    torch.manual_seed(recipe.seed)
    first = recipe.stages[0]
    model = DemoModel(ModelSizes(recipe.vocabulary, first.layers), run_block).to(device)
    lesson = make_lesson(recipe, model.sizes, device)
    start = folder.load()
    ranks.wait()
    for number, stage in enumerate(recipe.stages):
        if stage.layers != model.sizes.layers:
            model = grow(model, stage.layers // model.sizes.layers)
        if start is not None and number < start.stage:
            continue
        here = start if start is not None and number == start.stage else None
        if here is not None:
            model.load_state_dict(here.model)
        _Stage(number, stage, lesson, model, folder, ranks, progress).run(here)
    return model


def train_rank(
    ranks: Ranks,
    recipe: Recipe,
    path: Path,
    device: torch.device,
    progress: ProgressFunction = lambda stage, step, loss: None,
) -> DemoModel:
    """Train as one of several processes; what it takes can be sent to another process."""
    return train(recipe, StageFolder(path), ranks, device, progress, _block_function(device))


def _block_function(device: torch.device) -> BlockFunction:
    """Compile one block, which all layers share, where a C++ compiler is at hand: 20 % faster."""
    if not can_compile(device):
        return decoder_block
    compiled: BlockFunction = torch.compile(decoder_block, dynamic=False)
    return compiled


def can_compile(device: torch.device) -> bool:
    """Say whether torch.compile has what it needs and pays."""
    return device.type == "cpu" and shutil.which("g++") is not None


class _Stage:
    """One stage under way."""

    def __init__(
        self,
        number: int,
        stage: StageRecipe,
        lesson: Lesson,
        model: DemoModel,
        folder: StageFolder,
        ranks: Ranks,
        progress: ProgressFunction,
    ) -> None:
        self.number = number
        self.stage = stage
        self.lesson = lesson
        self.model = model
        self.folder = folder
        self.ranks = ranks
        self.progress = progress
        self.parameters = trained_parameters(stage.name, model)
        self.optimizers = make_optimizers(self.parameters, stage.eye_share)

    def run(self, start: Checkpoint | None) -> None:
        """Run the steps that are left."""
        clock = Clock()
        first = 0
        if start is not None:
            clock = Clock(start.wall_seconds, start.cpu_seconds)
            first = start.step
            if start.optimizers:
                for optimizer, state in zip(self.optimizers, start.optimizers, strict=True):
                    optimizer.load_state_dict(state)
        for step in range(first, self.stage.steps):
            loss, shares = self._step(step)
            done = step + 1
            is_last = done == self.stage.steps
            if self.ranks.rank == 0:
                self.progress(self.stage, done, loss)
            if done % _LOG_EVERY == 0 or is_last:
                self._log(done, loss, shares)
            if done % self.stage.save_every == 0 or is_last:
                self._save(done, clock, loss, shares)

    def _step(self, step: int) -> tuple[float, dict[str, float]]:
        rate = learning_rate_share(self.stage, step)
        for optimizer, peak in zip(
            self.optimizers, (self.stage.muon_rate, self.stage.adam_rate), strict=True
        ):
            optimizer.zero_grad(set_to_none=True)
            set_rates(optimizer, peak * rate)
        lesson = replace(self.lesson, is_varied=self.stage.is_varied)
        loss = LOSSES[self.stage.name](lesson, self.model, self._scenes(step))
        loss.value.backward()  # type: ignore[no-untyped-call]
        self.ranks.average(_gradients(self.parameters))
        nn.utils.clip_grad_norm_(self.parameters.values(), _CLIP_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.value.item(), loss.shares

    def _scenes(self, step: int) -> list[Scene]:
        first = self.number * _SCENES_PER_STAGE + step * self.stage.batch
        rows = range(self.ranks.rank, self.stage.batch, self.ranks.count)
        scenes = [make_scene(Split.TRAIN, first + row, self.stage.backgrounds) for row in rows]
        return [emptied(scene) for scene in scenes] if self.stage.is_varied else scenes

    def _log(self, done: int, loss: float, shares: dict[str, float]) -> None:
        if self.ranks.rank == 0:
            self.folder.log(
                {"stage": self.stage.name, "step": done, "loss": loss, "shares": shares}
            )

    def _save(self, done: int, clock: Clock, loss: float, shares: dict[str, float]) -> None:
        cpu = torch.tensor([clock.cpu()])
        self.ranks.average([cpu])
        cpu_seconds = cpu.item() * self.ranks.count
        if self.ranks.rank == 0:
            self.folder.save(
                Checkpoint(
                    stage=self.number,
                    step=done,
                    wall_seconds=clock.wall(),
                    cpu_seconds=cpu_seconds / self.ranks.count,
                    model=self.model.state_dict(),
                    optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
                )
            )
        if self.ranks.rank == 0 and done == self.stage.steps:
            self.folder.add_summary(
                StageSummary(
                    name=self.stage.name,
                    layers=self.stage.layers,
                    steps=done,
                    wall_seconds=round(clock.wall(), 1),
                    cpu_seconds=round(cpu_seconds, 1),
                    loss=round(loss, 4),
                    shares={name: round(share, 4) for name, share in shares.items()},
                )
            )


def learning_rate_share(stage: StageRecipe, step: int) -> float:
    """Return the share of the peak rate: linear warmup, then linear decay."""
    warmup = min(1.0, (step + 1) / stage.warmup)
    decay = 1 - (1 - stage.final_share) * step / stage.steps
    return warmup * decay


def _gradients(parameters: dict[str, nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters.values() if parameter.grad is not None]
