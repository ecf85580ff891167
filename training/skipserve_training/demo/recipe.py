"""What the training does: the sizes, and for each stage its steps and rates."""

from dataclasses import dataclass, replace
from enum import StrEnum

from skipserve_client.evaluate.questions import QuestionType


class StageName(StrEnum):
    """The stages in the order in which they run."""

    VISION = "vision"
    SYMBOLIC = "symbolic"
    END_TO_END = "end-to-end"
    FINAL = "final"


@dataclass(frozen=True)
class StageRecipe:
    """One stage: its length, its rates, and the depth at which it trains."""

    name: StageName
    layers: int
    steps: int
    batch: int
    muon_rate: float  # of the block matrices: the spectral norm of a step
    adam_rate: float  # of everything else
    final_share: float  # of the rates, reached by linear decay at the last step
    eye_share: float = 1.0  # of the rates, for the eye where both parts train
    warmup: int = 30
    save_every: int = 50


@dataclass(frozen=True)
class Recipe:
    """The whole training; equal recipes on equal hardware make equal models."""

    stages: tuple[StageRecipe, ...]
    seed: int = 20
    vocabulary: int = 448
    rows: int = 128  # tokens of a packed training sequence
    token_noise: float = 0.1  # of the symbolic visual tokens, per dimension
    caption_weight: float = 0.35
    end_weight: float = 0.3
    held_out_questions: int = 2100

    def scaled(self, factor: float) -> "Recipe":
        """Return the recipe with every stage's steps multiplied."""
        stages = tuple(
            replace(stage, steps=max(1, round(stage.steps * factor))) for stage in self.stages
        )
        return replace(self, stages=stages)


# How often each type is asked while training: what is harder to learn comes up more.
QUESTION_SHARES: dict[QuestionType, float] = {
    QuestionType.COLOUR: 1.0,
    QuestionType.SHAPE: 1.0,
    QuestionType.SIZE: 0.6,
    QuestionType.COUNT: 2.0,
    QuestionType.EXISTENCE: 1.2,
    QuestionType.RELATION: 2.2,
    QuestionType.CAPTION: 1.2,
}

LAYERS = 32
DISTINCT_LAYERS = 16  # trained before each is split in two


def default_recipe() -> Recipe:
    """Return the recipe of the shipped checkpoint.

    The rates rise again in the last stage so that the two halves of a split layer part.
    """
    return Recipe(
        stages=(
            StageRecipe(StageName.VISION, DISTINCT_LAYERS, 2500, 64, 0.01, 2e-3, 0.02),
            StageRecipe(StageName.SYMBOLIC, DISTINCT_LAYERS, 760, 64, 0.01, 2e-3, 0.72),
            StageRecipe(StageName.END_TO_END, DISTINCT_LAYERS, 250, 64, 0.006, 1.2e-3, 0.7, 0.1),
            StageRecipe(StageName.FINAL, LAYERS, 600, 64, 0.006, 1e-3, 0.0, 0.1),
        )
    )
