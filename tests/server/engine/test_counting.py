"""Executed counts against the formula of a whole request."""

import pytest
from fake_decoder import CONFIG, NUM_LAYERS
from hypothesis import given
from hypothesis import strategies as st
from plan_strategies import plans

from skipserve.engine.counting import WorkCounter
from skipserve.engine.types import Executed
from skipserve_policies import flops
from skipserve_policies.plan import Plan, TokenClass, trim

pytestmark = pytest.mark.fast

SIZES = CONFIG.sizes
FULL = trim(Plan.full(NUM_LAYERS))


def _run(plan: Plan, prompt: tuple[TokenClass, ...], num_generated: int, images: int) -> Executed:
    """Add up a prefill and the steps after it."""
    counter = WorkCounter(SIZES)
    total = counter.executed(plan, prompt, first_position=0, num_images=images)
    for position in range(len(prompt), len(prompt) + num_generated - 1):
        total += counter.executed(
            plan, (TokenClass.GENERATED,), first_position=position, num_images=0
        )
    return total


_prompts = st.lists(st.sampled_from([TokenClass.TEXT, TokenClass.VISUAL]), max_size=9).map(
    lambda classes: (*classes, TokenClass.LAST)
)


@given(plans(NUM_LAYERS), _prompts, st.integers(1, 6), st.integers(0, 2))
def test_the_steps_of_a_request_add_up_to_the_plan(
    plan: Plan, prompt: tuple[TokenClass, ...], num_generated: int, images: int
) -> None:
    plan = trim(plan)
    total = _run(plan, prompt, num_generated, images)
    shape = flops.Request(prompt, num_generated, num_images=images)
    assert total.flops == flops.request_flops(SIZES, plan, shape).total
    assert total.full_flops == flops.request_flops(SIZES, FULL, shape).total
    assert 0 <= total.flops <= total.full_flops
    assert total.skipped_attention >= 0
    assert total.skipped_ffn >= 0


@given(_prompts, st.integers(1, 6))
def test_full_saves_nothing(prompt: tuple[TokenClass, ...], num_generated: int) -> None:
    total = _run(FULL, prompt, num_generated, images=1)
    assert total.flops == total.full_flops
    assert (total.skipped_attention, total.skipped_ffn) == (0, 0)


def test_sublayers_are_counted_by_row_and_layer() -> None:
    """Three prompt rows and a generated one in four layers; the last needs the last row alone."""
    total = _run(FULL, (TokenClass.TEXT, TokenClass.VISUAL, TokenClass.LAST), 2, images=0)
    assert (total.attention, total.ffn) == (3 * 3 + 1 + 4, 3 * 3 + 1 + 4)
