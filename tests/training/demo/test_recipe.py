"""The recipe's stages, and their scaling."""

import pytest

from skipserve_client.evaluate.backgrounds import BACKGROUND_KINDS, BackgroundKind
from skipserve_client.evaluate.questions import PHRASINGS
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


def test_scaling_can_leave_the_first_stages() -> None:
    recipe = default_recipe()
    scaled = recipe.scaled(0.1, first=4)
    assert scaled.stages[:4] == recipe.stages[:4]
    assert [stage.steps for stage in scaled.stages[4:]] == [
        round(stage.steps / 10) for stage in recipe.stages[4:]
    ]


def test_the_stages_before_the_backgrounds_see_one_kind_and_the_others_all() -> None:
    for stage in default_recipe().stages:
        is_late = stage.name in (StageName.BACKGROUNDS, StageName.VARIED)
        assert stage.backgrounds == (BACKGROUND_KINDS if is_late else (BackgroundKind.SHADED,))


def test_every_type_is_asked() -> None:
    assert set(QUESTION_SHARES) == set(PHRASINGS)
    assert min(QUESTION_SHARES.values()) > 0


def test_there_are_enough_held_out_questions() -> None:
    assert default_recipe().held_out_questions >= 1000
