"""A recipe small enough for a test: two layers that grow to four, a few steps, small batches."""

import pytest
import torch

from skipserve_training.demo.model import DemoModel, ModelSizes
from skipserve_training.demo.recipe import Recipe, StageName, StageRecipe
from skipserve_training.demo.stages import Lesson, make_lesson

GROWN = (StageName.FINAL, StageName.BACKGROUNDS, StageName.VARIED)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(
        stages=tuple(
            StageRecipe(
                name,
                layers=4 if name in GROWN else 2,
                steps=3,
                batch=4,
                muon_rate=0.01,
                adam_rate=2e-3,
                final_share=0.1,
                warmup=1,
                save_every=2,
                is_varied=name is StageName.VARIED,
            )
            for name in StageName
        ),
        held_out_questions=14,
    )


@pytest.fixture
def model(recipe: Recipe) -> DemoModel:
    torch.manual_seed(0)
    return DemoModel(ModelSizes(recipe.vocabulary, 2))


@pytest.fixture(scope="session")
def lesson(recipe: Recipe) -> Lesson:
    sizes = ModelSizes(recipe.vocabulary, 2)
    return make_lesson(recipe, sizes, torch.device("cpu"))
