"""Sequences stand still between launches, and leave nothing behind."""

import numpy as np
import pytest
from on_gpu.lineup import Lineup
from random_weights import SHAPES, model_config

from skipserve.engine.inputs import StepRows
from skipserve_policies.plan import Plan, TokenClass, trim

pytestmark = pytest.mark.fast

CONFIG = model_config(SHAPES["tiny"])
FULL = trim(Plan.full(CONFIG.sizes.decoder.num_layers))


def test_a_decoded_row_sees_the_context() -> None:
    lineup = Lineup(CONFIG, 3, 20)
    with lineup.steps([FULL] * 3, 20) as steps:
        rows = StepRows.of(steps.decode, lineup.tables)
        again = StepRows.of(steps.decode, lineup.tables)
        prompts = StepRows.of(steps.prefill, lineup.tables)
    token_ids, positions, kv_slots, _ = rows.numbers
    prompt_ids, _, prompt_kv_slots, _ = prompts.numbers
    assert positions.tolist() == [19] * 3
    assert (rows.columns % len(TokenClass) == TokenClass.GENERATED).all()
    np.testing.assert_array_equal(rows.numbers, again.numbers)
    assert len({*prompt_kv_slots, *kv_slots}) == 3 * 20
    assert prompt_ids.min() >= 0
    assert token_ids.min() >= 0
    assert CONFIG.image_token_id not in prompt_ids


def test_seats_pages_and_plans_are_given_back() -> None:
    lineup = Lineup(CONFIG, 2, 20)
    for context in (20, 12, 20):
        with lineup.steps([FULL] * 2, context):
            assert lineup.tables.num_free == 0
        assert lineup.tables.num_free == 2
        assert lineup.plans.num_plans == 0
