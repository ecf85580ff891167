"""The recipe's stages, and their scaling."""

import pytest

from skipserve_client.evaluate.questions import QUESTION_TYPES
from skipserve_training.demo.recipe import LAYERS, QUESTION_SHARES, StageName, default_recipe

pytestmark = pytest.mark.fast


def test_the_model_is_as_deep_as_the_papers() -> None:
    assert LAYERS == 32
    assert default_recipe().stages[-1].layers == LAYERS


def test_the_stages_are_in_order() -> None:
    assert [stage.name for stage in default_recipe().stages] == list(StageName)


def test_scaling_multiplies_steps_and_keeps_at_least_one() -> None:
    recipe = default_recipe()
    halves = recipe.scaled(0.5).stages
    assert [stage.steps for stage in halves] == [round(s.steps / 2) for s in recipe.stages]
    assert {stage.steps for stage in recipe.scaled(0).stages} == {1}


def test_every_type_is_asked() -> None:
    assert set(QUESTION_SHARES) == set(QUESTION_TYPES)
    assert min(QUESTION_SHARES.values()) > 0


def test_there_are_enough_held_out_questions() -> None:
    assert default_recipe().held_out_questions >= 1000
