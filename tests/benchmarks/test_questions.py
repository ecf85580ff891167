"""Questions are random, prepared, and the same for the same seed."""

from pathlib import Path

import pytest
from questions import NUM_BEFORE, QuestionSource, flops_ratio

from skipserve.model.config import ModelConfig
from skipserve_policies.plan import TokenClass

pytestmark = pytest.mark.fast


@pytest.fixture
def config(deep_model: Path) -> ModelConfig:
    return ModelConfig.from_folder(deep_model)


def test_a_question_is_text_around_a_picture(config: ModelConfig) -> None:
    question = QuestionSource(config, seed=0).question(12, 3)
    num_visual = config.sizes.rows_per_image
    is_image = [token_id == config.image_token_id for token_id in question.prompt_ids]
    assert is_image == [False] * NUM_BEFORE + [True] * num_visual + [False] * (12 - NUM_BEFORE)
    assert question.token_classes[-1] is TokenClass.LAST
    assert question.num_new_tokens == 3
    size = config.sizes.vision.image_size
    assert question.pixel_values.shape == (1, 3, size, size)
    mean, std = config.image_processor.mean[0], config.image_processor.std[0]
    corner = (question.image.pixels[0] / 255 - mean) / std
    assert question.pixel_values[0, 0, 0, 0].item() == pytest.approx(corner, abs=1e-5)


def test_a_seed_gives_the_same_questions(config: ModelConfig) -> None:
    first, again, other = (QuestionSource(config, seed).question(9, 1) for seed in (0, 0, 1))
    assert first.prompt_ids == again.prompt_ids != other.prompt_ids
    assert first.image == again.image != other.image


def test_questions_on_one_picture_share_all_but_their_end(config: ModelConfig) -> None:
    source = QuestionSource(config, seed=0)
    picture = source.picture()
    first, second = (source.question(20, 1, picture=picture) for _ in range(2))
    start = NUM_BEFORE + config.sizes.rows_per_image
    assert first.image == second.image
    assert first.prompt_ids[:start] == second.prompt_ids[:start]
    assert first.prompt_ids[start:] != second.prompt_ids[start:]
    assert source.question(20, 1).image != first.image


def test_numbers_take_both_bounds(config: ModelConfig) -> None:
    source = QuestionSource(config, seed=0)
    assert {source.number(1, 3) for _ in range(100)} == {1, 2, 3}


def test_a_policy_brings_its_plan(config: ModelConfig) -> None:
    source = QuestionSource(config, seed=0)
    full, skipping = (
        source.question(9, 1, policy=policy) for policy in ("full", "skip-block-every-3-from-16")
    )
    assert skipping.policy == "skip-block-every-3-from-16"
    assert full.plan != skipping.plan


def test_a_policy_takes_rows_of_the_picture_away(config: ModelConfig) -> None:
    source = QuestionSource(config, seed=0)
    names = ("full", "random-192", "fastv-192")
    full, fewer, leaving = (source.question(9, 1, policy=policy) for policy in names)
    assert fewer.image.num_rows < config.sizes.rows_per_image
    assert len(fewer.prompt_ids) - fewer.image.num_rows == len(full.prompt_ids) - (
        config.sizes.rows_per_image
    )
    assert leaving.narrowing is not None
    assert len(leaving.prompt_ids) == len(full.prompt_ids)
    ratios = [flops_ratio(config.sizes, question) for question in (full, leaving, fewer)]
    assert ratios[0] == 1 < ratios[1]
    assert ratios[2] > 1


def test_the_flops_ratio_grows_with_what_is_skipped(config: ModelConfig) -> None:
    source = QuestionSource(config, seed=0)
    ratios = [
        flops_ratio(config.sizes, source.question(18, 10, policy=policy))
        for policy in ("full", "skip-ffn-every-3-from-16-all", "skip-block-every-3-from-16-all")
    ]
    assert ratios[0] == 1
    assert ratios == sorted(set(ratios))
