"""Rules by which visual rows leave inside the decoder, and what they mean for a model."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from skipserve_policies.catalog import load_catalog
from skipserve_policies.cost import compare, saving, standard_request
from skipserve_policies.faults import faults_of
from skipserve_policies.flops import RequestFlops, ranking_flops, request_flops
from skipserve_policies.narrowing import (
    Departure,
    Narrowing,
    NarrowingMisfitError,
    Stage,
    VisualRows,
    make_narrowing,
    narrowed,
    stretches,
)
from skipserve_policies.plan import IDLE, Plan, TokenClass, trim
from skipserve_policies.resolve import (
    PolicyContradictionError,
    PolicyMisfitError,
    ResolvedPolicy,
    resolve,
    resolve_for,
)
from skipserve_policies.schema import Dropper, DropVisual, SkipPolicy
from skipserve_policies.sizes import KNOWN_MODELS, DecoderSizes, ModelSizes

pytestmark = pytest.mark.fast

LLAVA_7B = KNOWN_MODELS["llava-1.5-7b"]
SMOLVQA = replace(LLAVA_7B, decoder=replace(LLAVA_7B.decoder, num_layers=30))
OPT = replace(
    LLAVA_7B,
    decoder=DecoderSizes(24, 1024, 16, 16, 64, 4096, 50272, is_gated=False, learns_positions=True),
)
CATALOG = load_catalog()
STANDARD = standard_request(LLAVA_7B)
TEXT, VISUAL, LAST = TokenClass.TEXT, TokenClass.VISUAL, TokenClass.LAST


def rule(**changes: Any) -> dict[str, Any]:
    return {"action": "drop_visual", "method": "fastv"} | changes


def skip(**changes: Any) -> dict[str, Any]:
    return {"action": "skip_block", "layers": [1], "scope": "answer"} | changes


def made(sizes: ModelSizes = LLAVA_7B, **changes: Any) -> Narrowing | None:
    return make_narrowing(DropVisual.model_validate(rule(**changes)), sizes)


def resolved(*rules: dict[str, Any], sizes: ModelSizes = LLAVA_7B) -> ResolvedPolicy:
    return resolve_for("p", SkipPolicy.model_validate({"rules": rules}), sizes)


# --- the language


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"method": "visionzip"}, "method: this must be one of vtw, fastv, dart, pyramiddrop, spa"),
        ({"method": "fastv2"}, "is it fastv?"),
        ({"before": -1}, "before: this must be at least 0"),
        ({"before": 1.5}, "before: this must be a whole number such as 16, or a share"),
        ({"before": "101%"}, "before: a share of the depth lies between 0% and 100%"),
        ({"before": []}, "before: the list is empty"),
        ({"before": [2, 3], "keep": [4, 2]}, "fastv drops rows before one block: name one"),
        ({"before": list(range(99))}, "before: this may have at most 16 items"),
        ({"keep": 0}, "keep: this must be at least 1"),
        ({"keep": "0%"}, "keep: a share of rows lies above 0"),
        ({"keep": [1, 2]}, "keep has 2 amounts for 1 blocks: one each"),
        ({"method": "vtw", "keep": 1}, "keep has no meaning for the method vtw"),
        ({"method": "pyramiddrop", "before": [2, 4]}, "with 2 blocks, keep must say one amount"),
        ({"method": "pyramiddrop", "keep": [2]}, "keep has 1 amounts for 3 blocks: one each"),
        ({"positions": "keep"}, "positions: this must be one of kept, renumbered; is it kept?"),
        ({"seed": 3}, "seed has no meaning for the method fastv"),
        ({"method": "random", "seed": -1}, "seed: this must be at least 0"),
        ({"layers": [3]}, "layers: this field is not known"),
        ({"scope": "visual"}, "scope: this field is not known"),
        ({"kep": 3}, "kep: this field is not known; is it keep?"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_in_plain_words(
    changes: dict[str, Any], fault: str
) -> None:
    stanza = {"rules": [skip(), rule(**changes)]}
    with pytest.raises(ValidationError) as caught:
        SkipPolicy.model_validate(stanza)
    (told,) = map(str, faults_of(caught.value, SkipPolicy, stanza))
    assert told.startswith("rules.1")
    assert fault in told


def test_a_rule_comes_back_as_it_was_written() -> None:
    stanza = {
        "rules": [
            rule(method="pyramiddrop", before=["25%", 9], keep=["1/2", 3], positions="kept"),
            rule(method="random", seed=4),
        ]
    }
    policy = SkipPolicy.model_validate(stanza)
    assert SkipPolicy.model_validate_json(policy.model_dump_json(by_alias=True)) == policy
    assert policy.removes_rows
    assert not policy.reduces_images


# --- what it means for a model


def test_the_papers_layers_and_counts_follow_from_the_shares() -> None:
    assert made() == Narrowing(Dropper.FASTV, (Stage(2, 288),))
    assert made(method="vtw") == Narrowing(Dropper.VTW, (Stage(16, 0),))
    assert made(method="dart") == Narrowing(Dropper.DART, (Stage(2, 192),))
    assert made(method="random") == Narrowing(Dropper.RANDOM, (Stage(2, 288),), seed=0)
    pyramid = (Stage(8, 288), Stage(16, 144), Stage(24, 72))
    assert made(method="pyramiddrop") == Narrowing(Dropper.PYRAMIDDROP, pyramid, renumbers=True)
    sparse = (Stage(3, 300), Stage(7, 200), Stage(16, 110))
    assert made(method="sparsevlm") == Narrowing(Dropper.SPARSEVLM, sparse, renumbers=True)


def test_shares_mean_something_at_any_depth() -> None:
    thirty = made(SMOLVQA, method="pyramiddrop")
    assert thirty is not None
    assert [stage.layer for stage in thirty.stages] == [8, 15, 23]


def test_counts_are_rounded_as_the_methods_round() -> None:
    """By FastV's half to even, PyramidDrop's cut, and else to the nearest."""
    odd = replace(LLAVA_7B, vision=replace(LLAVA_7B.vision, image_size=70))
    assert odd.rows_per_image == 25
    for method, expected in (("fastv", 12), ("pyramiddrop", 12), ("random", 13)):
        narrowing = made(odd, method=method, before="50%", keep="50%")
        assert narrowing is not None
        assert narrowing.stages[0].num_rows == expected


def test_all_rows_are_no_narrowing() -> None:
    assert made(keep="100%") is None
    assert made(keep=576) is None
    assert resolved(rule(keep=600)).digest == resolve("full", CATALOG["full"], 32).digest


@pytest.mark.parametrize("method", ["vtw", "fastv"])
@pytest.mark.parametrize("before", [0, 32, 200, "0%", "100%"])
def test_layers_before_which_no_row_can_leave(method: str, before: int | str) -> None:
    with pytest.raises(NarrowingMisfitError, match="of this model that can be layers 1 to 31"):
        made(method=method, before=before)


def test_layers_that_do_not_ascend() -> None:
    with pytest.raises(NarrowingMisfitError, match=r"must ascend; .* they are 8, 8"):
        made(method="pyramiddrop", before=[8, "25%"], keep=[9, 5])
    with pytest.raises(NarrowingMisfitError, match="must ascend"):
        made(method="pyramiddrop", before=[9, 8], keep=[9, 5])


def test_learned_positions_cannot_be_renumbered() -> None:
    with pytest.raises(PolicyMisfitError, match=r"rule 0 \(drop_visual, pyramiddrop\).*renumbered"):
        resolved(rule(method="pyramiddrop"), sizes=OPT)
    assert resolved(rule(method="pyramiddrop", positions="kept"), sizes=OPT).narrowing
    assert resolved(rule(), sizes=OPT).narrowing


@pytest.mark.parametrize(
    ("rules", "layer"),
    [
        ((skip(), rule()), 1),
        ((skip(action="skip_attention"), rule()), 1),
        ((skip(action="parallel_blocks", layers=[1]), rule()), 2),
        ((skip(action="parallel_blocks", layers=[0]), rule()), 1),
        ((skip(action="skip_attention", scope="all"), rule(method="dart")), 1),
        ((rule(method="vtw"), skip(action="parallel_blocks", layers=[15])), 16),
        ((rule(method="pyramiddrop"), skip(action="parallel_blocks", layers=[23])), 24),
        ((rule(method="sparsevlm"), skip(action="skip_attention", layers=[6], scope="all")), 6),
        ((rule(method="sparsevlm"), skip(action="parallel_blocks", layers=[14])), 15),
    ],
)
def test_a_choice_of_rows_needs_what_no_other_rule_may_skip(
    rules: tuple[dict[str, Any], ...], layer: int
) -> None:
    with pytest.raises(PolicyContradictionError) as caught:
        resolved(*rules)
    message = str(caught.value)
    assert f"contradict each other at layer {layer}" in message
    assert "rule 0" in message
    assert "rule 1" in message


def test_it_goes_with_other_rules() -> None:
    for other in (
        skip(layers=[2]),
        skip(scope="visual"),
        skip(action="skip_ffn"),
        skip(action="parallel_blocks", layers=[2]),
        skip(action="parallel_ffn_attention", scope="all"),
    ):
        policy = resolved(rule(), other)
        assert policy.narrowing == made()
        assert policy.layers["drop_visual"] == (2,)
        alone = resolved(other)
        assert policy.plan == alone.plan
        assert policy.digest != alone.digest


@pytest.mark.parametrize("other", [rule(method="vtw"), {"action": "reduce_visual"}])
def test_rows_are_taken_away_by_one_rule(other: dict[str, Any]) -> None:
    other = other | ({"method": "divprune", "keep": 9} if len(other) == 1 else {})
    with pytest.raises(PolicyContradictionError, match=r"rule 0 .* and rule 1 .* both take rows"):
        resolved(rule(), other)


def test_without_a_model_it_means_nothing() -> None:
    with pytest.raises(PolicyMisfitError, match=r"rule 0 \(drop_visual, fastv\): what it does"):
        resolve("p", SkipPolicy.model_validate({"rules": [rule()]}), 32)


def test_rows_that_are_about_to_leave_store_keys_and_values_alone() -> None:
    """Those of vtw are known: of the layer before, nobody sees more of them."""
    plan = resolved(rule(method="vtw", before=5)).plan
    full = trim(Plan.full(32))
    assert plan.cell(4, VISUAL) == IDLE
    assert plan.kv[VISUAL][4]
    assert plan.columns[VISUAL][:4] == full.columns[VISUAL][:4]
    for token_class in (TEXT, LAST, TokenClass.GENERATED):
        assert plan.columns[token_class] == full.columns[token_class]


def test_where_rows_leave_all_but_visual_ones_can_have_logits() -> None:
    for method in ("vtw", "random"):
        policy = resolved(rule(method=method, before=5))
        full, scoring = Plan.full(32), policy.scoring_plan
        assert (
            policy.plan_for(scores=True) == scoring != policy.plan == policy.plan_for(scores=False)
        )
        assert scoring.columns[TEXT] == full.columns[TEXT]
        assert scoring.columns[VISUAL] == policy.plan.columns[VISUAL]


# --- how many are left


def test_an_image_that_ends_the_prompt_keeps_its_last_row() -> None:
    rows = VisualRows.of((TEXT, VISUAL, VISUAL, LAST), 1)
    assert rows == VisualRows(count=2, num_images=1, num_behind=1)
    narrowing = Narrowing(Dropper.VTW, (Stage(3, 0),))
    assert narrowing.num_left(rows) == (0,)
    assert narrowed((TEXT, VISUAL, VISUAL, LAST), 0) == (TEXT, LAST)


def test_without_an_image_nothing_leaves() -> None:
    rows = VisualRows.of((TEXT, LAST), 0)
    for name, policy in CATALOG.items():
        narrowing = resolve_for(name, policy, LLAVA_7B).narrowing
        assert narrowing is None or not narrowing.acts_on(rows)


def test_several_images_keep_as_many_times() -> None:
    narrowing = Narrowing(Dropper.PYRAMIDDROP, (Stage(2, 10), Stage(4, 3)), renumbers=True)
    assert narrowing.num_left(VisualRows(48, num_images=3, num_behind=2)) == (30, 9)
    assert narrowing.num_left(VisualRows(25, num_images=3, num_behind=2)) == (25, 9)


def test_sparsevlm_merges_three_tenths_of_what_leaves_and_always_lets_one_go() -> None:
    narrowing = made(method="sparsevlm", before=[2, 4], keep=[10, 9])
    assert narrowing is not None
    first, second = narrowing.departures(VisualRows(60, num_images=2, num_behind=3))
    # Of 40 that leave, 13 are merged, into 2; of the 22 then left, 18 stay, and 2 of 4 make one.
    assert first == Departure(2, 60, 20, num_merging=13, num_merged=2)
    assert second == Departure(4, 22, 18, num_merging=2, num_merged=1)
    kept = made(method="sparsevlm", before=2, keep="100%")
    assert kept is not None
    assert list(kept.departures(VisualRows(9, 1, 3))) == [Departure(2, 9, 8, 1, 1)]
    for few in (0, 1):
        assert not kept.acts_on(VisualRows(few, 1, 3))


def test_dart_keeps_its_pivots_and_shares_for_each() -> None:
    def left(wanted: int, num_behind: int, count: int = 576) -> int:
        narrowing = Narrowing(Dropper.DART, (Stage(2, wanted),))
        return narrowing.num_left(VisualRows(count, 1, num_behind))[0]

    assert (left(192, 25), left(128, 25), left(64, 25)) == (196, 132, 68)
    # With two rows behind the image there are six pivots: 4 + 6 * (64 // 6).
    assert left(64, 2) == 64
    assert left(3, 25) == 4
    assert left(570, 25) == 572
    assert left(576, 25) == 576


_PROMPTS = st.lists(st.sampled_from([TEXT, VISUAL]), max_size=40).map(lambda it: (*it, LAST))


@given(_PROMPTS, st.integers(0, 40))
def test_what_is_left_of_a_prompt(prompt: tuple[TokenClass, ...], wanted: int) -> None:
    """So many visual rows, about equally many of each run, and all others in their order."""
    total = prompt.count(VISUAL)
    left = min(wanted, total)
    rest = narrowed(prompt, left)
    assert rest.count(VISUAL) == left
    assert [it for it in rest if it is not VISUAL] == [it for it in prompt if it is not VISUAL]
    assert narrowed(prompt, total) == prompt


@given(_PROMPTS, st.integers(0, 40))
def test_what_layers_see_of_a_prompt(prompt: tuple[TokenClass, ...], num_cached: int) -> None:
    narrowing = Narrowing(Dropper.PYRAMIDDROP, (Stage(2, 2), Stage(4, 1)), renumbers=True)
    num_cached = min(num_cached, len(prompt) - 1)
    seen = stretches(narrowing, prompt, num_cached, num_layers=6, image_rows=5)
    assert [layer for it in seen for layer in it.layers] == list(range(6))
    assert seen[0].prompt == prompt
    if VISUAL not in prompt:
        assert [it.num_cached for it in seen] == [num_cached]
    else:
        assert {it.num_cached for it in seen} == {min(num_cached, prompt.index(VISUAL))}
    for one, other in pairwise(seen):
        assert len(other.prompt) <= len(one.prompt)


# --- what it costs

# Of 35 + 576 + 25 rows and 10 tokens under LLaVA-1.5-7B, from a reference in whole numbers:
# prefill without and with trimming, and decode. It counts no choosing.
KNOWN = {
    ("fastv", 288): (4776921661440, 4658770837504, 118318694400),
    ("fastv", 192): (3597061324800, 3511795154944, 117894021120),
    ("fastv", 64): (2030960640000, 1989305794560, 117327790080),
    ("dart", 192): (3646131732480, 3559498383360, 117911715840),
    ("dart", 64): (2079779389440, 2036765753344, 117345484800),
    ("pyramiddrop", None): (4312565022720, 4268192333824, 118148825088),
    ("sparsevlm", None): (3475244744704, 3416926650368, 117849194496),
}


def cost(policy: ResolvedPolicy, plan: Plan) -> RequestFlops:
    return request_flops(LLAVA_7B, plan, STANDARD, narrowing=policy.narrowing)


@pytest.mark.parametrize(("method", "keep"), KNOWN)
def test_the_cost_is_the_references_and_that_of_choosing(method: str, keep: int | None) -> None:
    policy = resolved(rule(method=method) | ({"keep": keep} if keep else {}))
    assert policy.narrowing is not None
    seen = stretches(policy.narrowing, STANDARD.prompt, 0, num_layers=32, image_rows=576)
    choosing = sum(
        ranking_flops(LLAVA_7B.decoder, policy.narrowing, entering) for entering in seen[:-1]
    )
    prefill, trimmed, decode = KNOWN[method, keep]
    assert 0 < choosing < 0.02 * prefill
    untrimmed = cost(policy, policy.untrimmed)
    assert (untrimmed.prefill - choosing, untrimmed.decode) == (prefill, decode)
    assert cost(policy, policy.plan).prefill - choosing == trimmed


def test_rows_that_are_withdrawn_cost_what_the_reference_says() -> None:
    policy = resolved(rule(method="vtw"))
    untrimmed = cost(policy, policy.untrimmed)
    assert (untrimmed.prefill, untrimmed.decode) == (4560880926720, 118233759744)
    # Trimmed, 576 rows run neither attention nor FFN in the last layer that they see.
    d, m, pairs = 4096, 11008, 576 * 35 + 576 * 577 // 2
    spared = 576 * (4 * d * d + 6 * d * m) + 4 * d * pairs
    assert cost(policy, policy.plan).prefill == 4540931080192 - spared


def test_what_is_at_hand_ends_before_the_image() -> None:
    policy = resolved(rule())
    for num_cached in (35, 60, 600):
        request = replace(STANDARD, num_cached=num_cached)
        planned = saving(LLAVA_7B, policy.plan, request, narrowing=policy.narrowing).planned_flops
        before = replace(STANDARD, num_cached=35)
        expected = request_flops(LLAVA_7B, policy.plan, before, narrowing=policy.narrowing)
        assert planned == expected.total


def test_a_comparison_counts_it_in_all_ways() -> None:
    policy = resolved(rule())
    counted = compare(LLAVA_7B, policy, STANDARD)
    assert counted.policy.exact.trimmed == cost(policy, policy.plan)
    assert counted.policy.dense.trimmed.prefill > counted.policy.exact.trimmed.prefill
    assert 0.40 < counted.saved_ratio < 0.43
