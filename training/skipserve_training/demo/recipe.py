"""What the training does: the sizes, and for each stage its steps and rates."""

from dataclasses import dataclass, replace
from enum import StrEnum

from skipserve_client.evaluate.backgrounds import BACKGROUND_KINDS, BackgroundKind
from skipserve_client.evaluate.questions import QuestionType


class StageName(StrEnum):
    """The stages in the order in which they run."""

    VISION = "vision"
    SYMBOLIC = "symbolic"
    END_TO_END = "end-to-end"
    FINAL = "final"
    BACKGROUNDS = "backgrounds"
    VARIED = "varied"


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
    backgrounds: tuple[BackgroundKind, ...] = (BackgroundKind.SHADED,)
    is_varied: bool = False  # asked in more ways and beyond the shapes, some scenes empty


@dataclass(frozen=True)
class Recipe:
    """The whole training; equal recipes on equal hardware make equal models."""

    stages: tuple[StageRecipe, ...]
    seed: int = 20
    vocabulary: int = 448
    rows: int = 128  # tokens of a packed training sequence
    token_noise: float = 0.1  # of the symbolic visual tokens, per dimension
    caption_weight: float = 0.35
    refusal_weight: float = 0.1
    end_weight: float = 0.3
    held_out_questions: int = 2400

    def scaled(self, factor: float, first: int = 0) -> "Recipe":
        """Return the recipe with the steps of every stage from number `first` on multiplied."""
        scaled = (
            replace(stage, steps=max(1, round(stage.steps * factor)))
            for stage in self.stages[first:]
        )
        return replace(self, stages=(*self.stages[:first], *scaled))


# How often each type is asked while training: what is harder to learn comes up more. Refusals
# are asked by varied stages only, with a share of their own.
QUESTION_SHARES: dict[QuestionType, float] = {
    QuestionType.COLOUR: 1.0,
    QuestionType.SHAPE: 1.0,
    QuestionType.SIZE: 0.6,
    QuestionType.COUNT: 2.0,
    QuestionType.EXISTENCE: 1.2,
    QuestionType.RELATION: 2.2,
    QuestionType.CAPTION: 1.2,
}

# What a varied stage adds.
EMPTY_SHARE = 1 / 24  # of the scenes
REWORDED_SHARE = 0.25  # of the questions
REFUSED_SHARE = 0.3  # of the pictures: one question is about something else
FOLLOW_UP_SHARE = 0.15  # of the questions: asked after another one and its answer
PICTURELESS_SHARE = 0.06  # of the sequences: no picture, so that every question is refused

LAYERS = 32
DISTINCT_LAYERS = 16  # trained before each is split in two


def default_recipe() -> Recipe:
    """Return the recipe of the shipped checkpoint.

    The rates rise again in `FINAL`, where layers are split, so that their halves part.
    """
    return Recipe(
        stages=(
            StageRecipe(StageName.VISION, DISTINCT_LAYERS, 2500, 64, 0.01, 2e-3, 0.02),
            StageRecipe(StageName.SYMBOLIC, DISTINCT_LAYERS, 760, 64, 0.01, 2e-3, 0.72),
            StageRecipe(StageName.END_TO_END, DISTINCT_LAYERS, 250, 64, 0.006, 1.2e-3, 0.7, 0.1),
            StageRecipe(StageName.FINAL, LAYERS, 600, 64, 0.006, 1e-3, 0.0, 0.1),
            StageRecipe(
                StageName.BACKGROUNDS,
                LAYERS,
                steps=3000,
                batch=64,
                muon_rate=0.008,
                adam_rate=1.6e-3,
                final_share=0.02,
                backgrounds=BACKGROUND_KINDS,
            ),
            StageRecipe(
                StageName.VARIED,
                LAYERS,
                steps=700,
                batch=64,
                muon_rate=0.005,
                adam_rate=1e-3,
                final_share=0.0,
                eye_share=0.1,
                backgrounds=BACKGROUND_KINDS,
                is_varied=True,
            ),
        )
    )
