"""Trains the module of a model of one's own, and says where everything of it is."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from skipserve_training.mapping.export import WEIGHTS_INDEX
from skipserve_training.mapping.produce import MappingJob, produce
from skipserve_training.mapping.recipe import MappingRecipe
from skipserve_training.mapping.served import CHECKPOINT_FOLDER
from skipserve_training.paper.own import Own
from skipserve_training.paper.running import Place, StageFunction
from skipserve_training.run_folder import claim

MODULE_RUN = "module"


@dataclass(frozen=True)
class OwnModel:
    """A model whose module is trained when its folder is asked for, and no second time."""

    own: Own
    runs: Path
    device: torch.device
    report: StageFunction

    def __call__(self, name: str) -> Path:
        """Return the folder of the checkpoint."""
        assert name == self.own.name
        return self._checkpoint

    @property
    def run(self) -> Path:
        """Return the run that it comes of."""
        return self.runs / MODULE_RUN

    @cached_property
    def _checkpoint(self) -> Path:
        checkpoint = self.run / CHECKPOINT_FOLDER
        if (checkpoint / WEIGHTS_INDEX).is_file():  # which is written last
            claim(self.run, self._job)
            return checkpoint
        features = self.runs / "features" / self.own.name
        return produce(self._job, self.run, self.device, self._tell, features).checkpoint

    def _tell(self, stage: str, done: int, total: int, loss: float) -> None:
        del loss
        self.report(stage, done, total)

    @property
    def _job(self) -> MappingJob:
        own = self.own
        a_step = own.pictures * own.lessons.questions_a_step
        recipe = MappingRecipe(
            steps=math.ceil(own.setup.questions / a_step),
            pictures=own.pictures,
            rate=own.rate,
            warmup=own.warmup,
        )
        return MappingJob(
            recipe, own.sources[0], str(own.llm), str(own.encoder), own.layer, own.keeps_class
        )


def own_place(own: Own, runs: Path, device: torch.device, report: StageFunction) -> Place:
    """Say where everything of a model of one's own is."""
    model = OwnModel(own, runs, device, report)
    return Place(
        models=model,
        trained_on=own.sources[0],
        asked=own.sources[1],
        tasks=own.all_tasks,
        runs=runs,
        device=device,
        setup=own.setup,
        module=model.run,
        command=own.command("{}"),
        views=1,
    )
