"""What is reported of a policy's cost: replies, the policy list, the command line."""

import json

import pytest
from catalog_parts import skipping_policies

from skipserve_policies.catalog import load_catalog
from skipserve_policies.cost import (
    Saving,
    compare,
    make_request,
    parse_prompt,
    request_shape,
    saving,
    standard_request,
)
from skipserve_policies.flops import Request, request_flops
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.resolve import ResolvedPolicy, resolve
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

TEXT, VISUAL, LAST, GENERATED = TokenClass
LLAVA_7B = KNOWN_MODELS["llava-1.5-7b"]
STANDARD = standard_request(LLAVA_7B)
PARTS = ["vision", "projector", "prefill", "decode", "head", "total"]


def shipped(name: str) -> ResolvedPolicy:
    return resolve(name, load_catalog()[name], 32)


# --- the prompt's notation


@pytest.mark.parametrize(
    ("notation", "counts"),
    [
        ("35+576+25", [35, 576, 25]),
        ("60", [60]),
        ("0+576", [0, 576]),
        ("1+2+3+4+5", [1, 2, 3, 4, 5]),
    ],
)
def test_text_and_visual_rows_take_turns(notation: str, counts: list[int]) -> None:
    parsed = parse_prompt(notation)
    assert [count for _, count in parsed] == counts
    assert [c for c, _ in parsed] == [TEXT, VISUAL, TEXT, VISUAL, TEXT][: len(counts)]


@pytest.mark.parametrize(
    "notation",
    ["", "+", "35+", "+35", "35++25", "-1+2", "35 + 576", "1.5", "x", "35+576+25\n", "٣", "9" * 99],
)
def test_what_is_not_a_prompts_shape(notation: str) -> None:
    with pytest.raises(ValueError, match=r'such as "35\+576\+25"'):
        parse_prompt(notation)


@pytest.mark.parametrize("notation", ["0", "0+0", "1000001", "999999999+999999999"])
def test_prompts_without_rows_or_with_far_too_many(notation: str) -> None:
    with pytest.raises(ValueError, match="a prompt has 1 to 1000000 rows, not "):
        parse_prompt(notation)


@pytest.mark.parametrize(
    ("notation", "num_images"), [("60", 0), ("35+576+25", 1), ("1+5+0+5", 2), ("1+0+5", 0)]
)
def test_each_run_of_visual_rows_is_an_image(notation: str, num_images: int) -> None:
    request = make_request(parse_prompt(notation), num_generated=3)
    assert request.num_images == num_images
    assert request.num_generated == 3
    assert request.num_cached == 0
    assert request.prompt[-1] is LAST


def test_the_standard_request() -> None:
    assert make_request(parse_prompt("35+576+25"), num_generated=10) == STANDARD


# --- savings


def test_the_full_model_saves_nothing() -> None:
    assert saving(LLAVA_7B, shipped("full").plan, STANDARD).saved_ratio == 0
    assert compare(LLAVA_7B, shipped("full"), STANDARD).saved_ratio == 0


def test_a_saving_compares_trimmed_with_trimmed() -> None:
    plan = shipped("shortv-7b").plan
    assert saving(LLAVA_7B, plan, STANDARD) == Saving(
        planned_flops=request_flops(LLAVA_7B, plan, STANDARD).total,
        full_flops=request_flops(LLAVA_7B, trim(Plan.full(32)), STANDARD).total,
    )
    assert Saving(planned_flops=3, full_flops=4).saved_ratio == 0.25


def test_a_saving_leaves_out_what_is_cached() -> None:
    cached = Request(STANDARD.prompt, num_generated=10, num_cached=620)
    cost = saving(LLAVA_7B, shipped("shortv-7b").plan, cached)
    assert cost.planned_flops == cost.full_flops, "no visual row is left to save at"


@pytest.mark.parametrize("name", skipping_policies())
def test_no_shipped_policy_costs_more_than_the_full_model(name: str) -> None:
    ratio = saving(LLAVA_7B, shipped(name).plan, STANDARD).saved_ratio
    assert 0 <= ratio < 1
    saves_nothing = name == "full" or name.startswith("parallel-ffn-attention")
    assert (ratio == 0) == (saves_nothing or name == "parallel-blocks-every-3-from-16")


@pytest.mark.parametrize("num_cached", [0, 30, 34])
@pytest.mark.parametrize(
    "notation", ["35+576+25", "60", "0+576+1", "3+576+0+576+2", "5+0+5", "0+10+3", "2+576+0+9+1"]
)
def test_a_requests_shape_leads_back_to_it(notation: str, num_cached: int) -> None:
    segments = parse_prompt(notation)
    num_cached = min(num_cached, sum(count for _, count in segments) - 1)
    request = make_request(segments, num_generated=7, num_cached=num_cached)
    shape = request_shape(LLAVA_7B, request)
    assert (shape.cached_tokens, shape.generated_tokens) == (num_cached, 7)
    assert (shape.prompt == notation) == (notation != "5+0+5")
    assert make_request(parse_prompt(shape.prompt), 7, num_cached) == request


def test_an_image_is_encoded_unless_all_its_rows_are_cached() -> None:
    segments = parse_prompt("3+576+0+576+2")
    counts = {cached: make_request(segments, 1, cached).num_images for cached in (0, 578, 579, 580)}
    assert counts == {0: 2, 578: 2, 579: 1, 580: 1}
    assert make_request(segments, 1, 3 + 2 * 576).num_images == 0


@pytest.mark.parametrize("num_cached", [5, 6])
def test_the_last_row_is_never_cached(num_cached: int) -> None:
    with pytest.raises(ValueError, match=f"{num_cached} cached rows: of a prompt of 5"):
        make_request(parse_prompt("5"), 1, num_cached)


def test_scored_tokens_cost_a_head_each_and_the_last_block() -> None:
    segments = parse_prompt("35+576+25")
    plain, scored = make_request(segments, 10), make_request(segments, 10, num_scored=59)
    assert request_shape(LLAVA_7B, scored).scored_tokens == 59
    ours, theirs = (compare(LLAVA_7B, shipped("full"), it).policy for it in (scored, plain))
    head = 2 * 4096 * LLAVA_7B.decoder.vocab_size
    assert ours.exact.trimmed.head == (10 + 59) * head
    assert ours.exact.trimmed.head - theirs.exact.trimmed.head == 59 * head
    assert (
        ours.exact.trimmed.prefill == theirs.exact.untrimmed.prefill > theirs.exact.trimmed.prefill
    )
    assert ours.exact.trimmed.decode == theirs.exact.trimmed.decode
    assert compare(LLAVA_7B, shipped("full"), scored).saved_ratio == 0


@pytest.mark.parametrize("name", skipping_policies())
def test_scoring_never_costs_more_than_the_full_models(name: str) -> None:
    policy = shipped(name)
    request = make_request(parse_prompt("35+576+25"), 10, num_scored=59)
    cost = saving(LLAVA_7B, policy.plan_for(scores=True), request)
    assert 0 <= cost.saved_ratio < 1
    assert compare(LLAVA_7B, policy, request).saved_ratio == cost.saved_ratio
    assert cost.planned_flops > saving(LLAVA_7B, policy.plan, STANDARD).planned_flops


@pytest.mark.parametrize(
    ("num_cached", "num_scored", "told"),
    [(0, 60, "there are 59 of text"), (0, -1, "there are 59 of text"), (1, 5, "none is cached")],
)
def test_tokens_that_cannot_be_scored(num_cached: int, num_scored: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_request(parse_prompt("35+576+25"), 10, num_cached, num_scored)


def test_pairs_at_the_top_save_one_block_of_the_prompt() -> None:
    """Block 31 reads the pair's input: no prompt row but the last needs block 30."""
    cost = compare(LLAVA_7B, shipped("parallel-blocks-every-3-from-16-all"), STANDARD)
    full = cost.full.exact
    assert cost.policy.exact.untrimmed == full.untrimmed
    one_block = full.untrimmed.prefill - full.trimmed.prefill
    assert full.trimmed.prefill - cost.policy.exact.trimmed.prefill == one_block


def test_all_ways_of_counting() -> None:
    policy = shipped("skip-attention-from-16-all")
    cost = compare(LLAVA_7B, policy, STANDARD)
    exact, dense = cost.policy.exact, cost.policy.dense
    assert exact.trimmed.total < exact.untrimmed.total < dense.untrimmed.total
    assert exact.trimmed.total < dense.trimmed.total < dense.untrimmed.total
    assert exact.trimmed.decode == dense.trimmed.decode
    assert cost.saved_ratio == saving(LLAVA_7B, policy.plan, STANDARD).saved_ratio
    assert cost.saved_ratio == 1 - exact.trimmed.total / cost.full.exact.trimmed.total


def test_the_form_that_the_command_line_prints() -> None:
    form = json.loads(json.dumps(compare(LLAVA_7B, shipped("shortv-7b"), STANDARD).as_json()))
    assert list(form) == ["policy", "full", "saved_ratio"]
    for side in ("policy", "full"):
        assert list(form[side]) == ["exact", "dense"]
        for counting in form[side].values():
            assert list(counting) == ["untrimmed", "trimmed"]
            for parts in counting.values():
                assert list(parts) == PARTS
                assert all(type(value) is int for value in parts.values())
                assert parts["total"] == sum(parts[name] for name in PARTS[:-1])
    assert form["full"]["exact"]["untrimmed"]["total"] == 8_871_973_322_752
    assert form["saved_ratio"] == pytest.approx(0.4116, abs=0.00005)
