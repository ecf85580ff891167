"""Executed counts against the formula of a whole request."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from engine_parts import EngineParts
from fake_decoder import (
    CONFIG,
    IMAGE_ID,
    NUM_LAYERS,
    TOKENS_PER_IMAGE,
    make_request,
    plan_of,
)
from hypothesis import given
from hypothesis import strategies as st
from plan_strategies import plans

from skipserve.engine.counting import WorkCounter
from skipserve.engine.reports import Executed
from skipserve.engine.request import Request
from skipserve_policies import flops
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.reduction import Reduction
from skipserve_policies.schema import Reducer
from skipserve_policies.shapes import resize

pytestmark = pytest.mark.fast

SIZES = CONFIG.sizes
FULL = trim(Plan.full(NUM_LAYERS))


def _run(requests: Iterable[Request], max_rows: int = 64) -> dict[str, Executed]:
    """Add up all steps of some requests, without reuse of anything, by policy name."""
    counter, parts = WorkCounter(SIZES), EngineParts(max_rows=max_rows)
    for request in requests:
        parts.add(request)
    total: dict[str, Executed] = {}
    while (step := parts.scheduler.schedule()).chunks:
        # An image is encoded when the first of its rows is reached; here all at the first chunk.
        encoded = {s: len(s.request.images) for s in step.placed}
        for name, executed in counter.executed(step, encoded).items():
            total[name] = total.get(name, Executed()) + executed
        parts.finish(step)
    return total


def _planned(request: Request, plan: Plan) -> int:
    shape = flops.Request(
        request.token_classes, request.sampling.max_tokens, num_images=len(request.images)
    )
    return flops.request_flops(SIZES, plan, shape).total


_requests = st.builds(
    lambda plan, num_text, num_images, max_tokens: make_request(
        num_text=num_text, num_images=num_images, max_tokens=max_tokens, plan=trim(plan)
    ),
    plans(NUM_LAYERS),
    st.integers(0, 8),
    st.integers(0, 2),
    st.integers(1, 6),
)


@given(_requests, st.integers(1, 30))
def test_the_steps_of_a_request_add_up_to_the_plan(request: Request, max_rows: int) -> None:
    total = _run([request], max_rows)["full"]
    assert total.flops == _planned(request, plan_of(request))
    assert total.full_flops == _planned(request, FULL)
    assert 0 <= total.flops <= total.full_flops
    assert total.skipped_attention >= 0
    assert total.skipped_ffn >= 0


@given(
    plans(NUM_LAYERS),
    st.integers(1, TOKENS_PER_IMAGE - 1),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_what_stands_for_whole_images_adds_up_to_them(
    plan: Plan, num_rows: int, num_images: int, max_tokens: int, max_rows: int
) -> None:
    """However a prompt is cut, its chunks stand for the full model's work on all rows."""
    reduction = Reduction(Reducer.DIVPRUNE, num_rows)
    whole = make_request(num_text=3, num_images=num_images, max_tokens=max_tokens, plan=trim(plan))
    images = tuple(image.reduced(reduction) for image in whole.images)
    classes = resize(whole.token_classes, TOKENS_PER_IMAGE, num_rows).prompt
    reduced = replace(
        whole,
        images=images,
        token_classes=classes,
        prompt_ids=tuple(IMAGE_ID if it is TokenClass.VISUAL else 9 for it in classes),
    )
    total = _run([reduced], max_rows)["full"]
    shape = flops.Request(classes, max_tokens, num_images=num_images)
    assert total.flops == flops.request_flops(SIZES, plan_of(whole), shape, reduction).total
    assert total.full_flops == _planned(whole, FULL)
    assert total.skipped_attention > 0


@given(st.lists(_requests, max_size=5), st.integers(1, 40))
def test_requests_of_one_policy_name_are_summed_whatever_their_plans(
    requests: list[Request], max_rows: int
) -> None:
    total = _run(requests, max_rows).get("full", Executed())
    assert total.flops == sum(_planned(request, plan_of(request)) for request in requests)


def test_policies_are_counted_apart() -> None:
    one = make_request("a", num_text=2, max_tokens=3)
    other = Request(**{**vars(one), "id": "b", "policy_name": "other"})
    total = _run([one, other])
    assert set(total) == {"full", "other"}
    assert total["full"] == total["other"]


def test_full_saves_nothing() -> None:
    total = _run([make_request(num_images=1)])["full"]
    assert total.flops == total.full_flops
    assert (total.skipped_attention, total.skipped_ffn) == (0, 0)


def test_sublayers_are_counted_by_row_and_layer() -> None:
    """Three prompt rows and a generated one in four layers; the last needs the last row alone."""
    total = _run([make_request(num_text=1, max_tokens=2)])["full"]
    assert (total.attention, total.ffn) == (3 * 3 + 1 + 4, 3 * 3 + 1 + 4)


def test_rows_that_are_computed_again_count_again() -> None:
    """Two requests that cannot both stay: what was executed is more than what was planned."""
    counter, parts = WorkCounter(SIZES), EngineParts(num_pages=7, reuses_prefixes=False)
    requests = [make_request(name, num_text=4, max_tokens=9) for name in "ab"]
    for request in requests:
        parts.add(request)
    total = Executed()
    while (step := parts.scheduler.schedule()).chunks:
        total += counter.executed(step, {})["full"]
        parts.finish(step)
    assert parts.scheduler.num_preemptions > 0
    assert total.flops > sum(_planned(request, FULL) for request in requests)
