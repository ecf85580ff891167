"""The least times of LLaVA-1.5-7B on an H100, against figures that were worked out by hand."""

from dataclasses import replace

import pytest
from plans import plan_of
from roofline import Ceilings, Chunk, Roofline

from skipserve_policies.plan import Plan, TokenClass
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

PUBLISHED = KNOWN_MODELS["llava-1.5-7b"]
PADDED = replace(PUBLISHED, decoder=replace(PUBLISHED.decoder, vocab_size=32064))
H100 = Roofline(PADDED, Ceilings(flops=798e12, bandwidth=3.0e12))
FULL = Plan.full(32)
PROMPT = (TokenClass.TEXT,) * 639 + (TokenClass.LAST,)


def skipping(layers: list[int], action: str = "skip_block") -> Plan:
    rule = {"action": action, "layers": layers, "scope": "all"}
    return resolve("skipping", SkipPolicy.model_validate({"rules": [rule]}), 32).untrimmed


EVERY_THIRD = skipping([18, 21, 24, 27, 30])


def prompt_seconds(plan: Plan) -> float:
    return H100.blocks_seconds([Chunk(plan, PROMPT)])


def test_a_step_reads_all_weights_and_the_keys_of_its_context() -> None:
    assert H100.decode_seconds([FULL], 1) == pytest.approx(4.40e-3, rel=0.002)
    assert H100.decode_seconds([FULL], 648) == pytest.approx(4.52e-3, rel=0.002)


def test_a_prompt_is_bound_by_its_arithmetic() -> None:
    assert prompt_seconds(FULL) == pytest.approx(10.5e-3, rel=0.005)
    assert H100.vision_seconds() == pytest.approx(0.49e-3, rel=0.005)


@pytest.mark.parametrize(("batch", "rate"), [(1, 23.5), (4, 52), (8, 84.6), (32, 85.6), (64, 85.6)])
def test_requests_share_the_weights(batch: int, rate: float) -> None:
    assert 1 / H100.request_seconds(FULL, PROMPT, 8, batch) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("policy", "gain"), [("shortv-7b", 1.57), ("visual-freeze-from-16", 1.44)])
def test_prompts_of_one_step_share_the_weights(policy: str, gain: float) -> None:
    """Each with a reading of its own, these policies would seem to gain 1.31 and 1.24."""
    classes = (*(TokenClass.TEXT,) * 35, *(TokenClass.VISUAL,) * 576, *PROMPT[-29:])
    full, skipped = (
        H100.request_seconds(plan_of(name, 32), classes, 8, 64) for name in ("full", policy)
    )
    assert full / skipped == pytest.approx(gain, rel=0.005)


@pytest.mark.parametrize(
    ("plan", "decode", "prefill"),
    [
        (EVERY_THIRD, 1.181, 1.185),
        (skipping(list(range(16, 32)), "skip_ffn"), 1.469, 1.492),
        (skipping(list(range(0, 32, 2))), 1.962, 2.00),
    ],
    ids=["every third block", "upper FFNs", "half of the blocks"],
)
def test_what_is_skipped_is_gained(plan: Plan, decode: float, prefill: float) -> None:
    measured = H100.decode_seconds([FULL], 648) / H100.decode_seconds([plan], 648)
    assert measured == pytest.approx(decode, rel=0.001)
    assert prompt_seconds(FULL) / prompt_seconds(plan) == pytest.approx(prefill, rel=0.005)


def test_a_mix_reads_the_union_of_the_weights() -> None:
    full, skipped, mixed = (
        H100.decode_seconds(plans, 1)
        for plans in ([FULL] * 2, [EVERY_THIRD] * 2, [FULL, EVERY_THIRD])
    )
    assert skipped < mixed
    assert mixed == pytest.approx(full, rel=0.001)  # but for a few keys


def test_rows_that_only_store_keys_cost_their_projection() -> None:
    rule = {"action": "skip_block", "layers": [31], "scope": "prompt"}
    plan = resolve("frozen", SkipPolicy.model_validate({"rules": [rule]}), 32).untrimmed
    chunk = Chunk(plan, PROMPT)
    saved = prompt_seconds(FULL) - H100.blocks_seconds([chunk])
    layer = prompt_seconds(FULL) / 32
    projection = 4 * 640 * 4096**2 / 798e12
    assert saved == pytest.approx(layer - projection, rel=0.001)
