"""What a training of a mapping module does; the defaults are the paper's."""

import math
from dataclasses import dataclass, field

from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping.projectors import ProjectorType


@dataclass(frozen=True)
class MappingRecipe:
    """The whole training; equal recipes on equal hardware make equal modules.

    Rates, weight decay and the loss's scale are those of "Skipping Computations in Multimodal
    LLMs", arXiv 2410.09454, and so are the module's sizes.

    Attributes:
        pictures: media a step, over all processes.
        first_rate: where the warm-up starts.
        last_rate: where the cosine ends, at the last step.
        clip_norm: the largest norm of a step's gradients; the paper names none. Without one a
            small batch that surprises undoes many steps.
    """

    steps: int
    projector: ProjectorType = ProjectorType.MAPPING
    sizes: MappingSizes = field(default_factory=MappingSizes)
    pictures: int = 8
    rate: float = 2e-4
    first_rate: float = 1e-4
    last_rate: float = 1e-5
    warmup: int = 100
    weight_decay: float = 0.02
    loss_scale: float = 0.1
    clip_norm: float = 1.0
    seed: int = 20
    save_every: int = 100

    def rate_at(self, step: int) -> float:
        """Return the rate of a step, from 0: a linear warm-up, then a cosine."""
        if step < self.warmup:
            return self.first_rate + (self.rate - self.first_rate) * step / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.last_rate + (self.rate - self.last_rate) * (1 + math.cos(math.pi * share)) / 2
