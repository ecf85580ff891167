"""FLOPs: the published figures, worked examples, and an independent count row by row."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_strategies import plans

from skipserve_policies.catalog import load_catalog
from skipserve_policies.flops import (
    Request,
    RequestFlops,
    Rows,
    Segments,
    count_rows,
    head_flops,
    prompt_classes,
    request_flops,
    vision_flops,
)
from skipserve_policies.plan import Ffn, Plan, TokenClass, trim
from skipserve_policies.resolve import ResolvedPolicy, resolve
from skipserve_policies.schema import Rule, SkipPolicy
from skipserve_policies.sizes import KNOWN_MODELS, DecoderSizes, ModelSizes

pytestmark = pytest.mark.fast

TEXT, VISUAL, LAST, GENERATED = TokenClass
LLAVA_7B, LLAVA_13B = KNOWN_MODELS["llava-1.5-7b"], KNOWN_MODELS["llava-1.5-13b"]
GIGA, TERA = 1e9, 1e12


def prompt_of(before: int, visual: int, after: int) -> tuple[TokenClass, ...]:
    return prompt_classes([(TEXT, before), (VISUAL, visual), (TEXT, after)])


# The published setting: 35 text tokens, an image of 576, 25 text tokens, 10 generated.
PUBLISHED = Request(prompt_of(35, 576, 25), num_generated=10, num_images=1)


def policy(action: str, layers: object, scope: str, num_layers: int = 32) -> ResolvedPolicy:
    form = {"rules": [{"action": action, "layers": layers, "scope": scope}]}
    return resolve("p", SkipPolicy.model_validate(form), num_layers)


def untrimmed(plan: Plan, request: Request = PUBLISHED, dense: bool = False) -> RequestFlops:
    return request_flops(LLAVA_7B, plan, request, dense=dense, trimmed=False)


def llm_saved(plan: Plan, request: Request = PUBLISHED) -> float:
    """Return the share of the decoder's FLOPs that an untrimmed plan saves, in percent."""
    return 100 * (1 - untrimmed(plan, request).llm / untrimmed(Plan.full(32), request).llm)


# --- the published figures


def test_llava_7b_at_the_published_setting() -> None:
    flops = untrimmed(Plan.full(32))
    assert flops.prefill / GIGA == pytest.approx(8343.7, abs=0.05)
    assert flops.decode / GIGA == pytest.approx(119.59, abs=0.005)
    assert flops.head / GIGA == pytest.approx(2.62, abs=0.005)
    assert flops.llm / GIGA == pytest.approx(8465.9, abs=0.05)
    assert flops.vision / GIGA == pytest.approx(381.92, abs=0.005)
    assert flops.projector / GIGA == pytest.approx(24.16, abs=0.005)
    assert flops.total / GIGA == pytest.approx(8872.0, abs=0.05)
    assert flops.decode / 9 / GIGA == pytest.approx(13.3, abs=0.05)


def test_the_tower_stops_at_the_layer_whose_output_is_used() -> None:
    flops = request_flops(LLAVA_7B, trim(Plan.full(32)), PUBLISHED)
    assert flops.vision / GIGA == pytest.approx(366.03, abs=0.005)
    assert (untrimmed(Plan.full(32)).vision - flops.vision) / GIGA == pytest.approx(15.9, abs=0.05)


def test_llava_13b_at_the_published_setting() -> None:
    flops = request_flops(LLAVA_13B, Plan.full(40), PUBLISHED, trimmed=False)
    assert flops.prefill / GIGA == pytest.approx(16304.8, abs=0.05)
    assert flops.decode / GIGA == pytest.approx(233.1, abs=0.05)


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("full", 0),
        ("skip-block-every-3-from-16", 0.22),
        ("skip-block-every-3-from-16-all", 15.62),
        ("skip-ffn-every-3-from-16", 0.14),
        ("skip-ffn-every-3-from-16-all", 10.31),
        ("skip-attention-every-3-from-16", 0.08),
        ("skip-attention-every-3-from-16-all", 5.31),
        ("parallel-ffn-attention-every-3-from-16", 0),
        ("parallel-ffn-attention-every-3-from-16-all", 0),
        ("visual-freeze-from-16", 37.33),
        ("shortv-7b", 44.33),
        ("opskip-7b-20", 25.93),
        ("opskip-7b-28", 29.87),
    ],
)
def test_what_a_shipped_policy_saves(name: str, saved: float) -> None:
    plan = resolve(name, load_catalog()[name], 32).untrimmed
    assert llm_saved(plan) == pytest.approx(saved, abs=0.005)


def shortv_layers(action: str) -> Plan:
    """Return what an action saves where ShortV freezes visual tokens."""
    (rule,) = load_catalog()["shortv-7b"].rules
    assert isinstance(rule, Rule)
    return policy(action, rule.layers, "visual").untrimmed


def test_visual_skips_on_the_layers_of_shortv() -> None:
    assert llm_saved(shortv_layers("skip_ffn")) == pytest.approx(34.97, abs=0.005)
    assert llm_saved(shortv_layers("skip_attention")) == pytest.approx(9.36, abs=0.005)


@pytest.mark.parametrize(("num_generated", "saved"), [(1, 0), (10, 0.22), (128, 2.6), (512, 7.0)])
def test_generated_only_saving_grows_with_the_answer(num_generated: int, saved: float) -> None:
    plan = policy("skip_block", {"start": 16, "interval": 3}, "generated").untrimmed
    request = replace(PUBLISHED, num_generated=num_generated)
    assert llm_saved(plan, request) == pytest.approx(saved, abs=0.05)


@pytest.mark.parametrize(("num_visual", "saved"), [(192, 59.83), (64, 79.57)])
def test_fewer_visual_tokens_before_the_llm(num_visual: int, saved: float) -> None:
    fewer = replace(PUBLISHED, prompt=prompt_of(35, num_visual, 25))
    ratio = untrimmed(Plan.full(32), fewer).llm / untrimmed(Plan.full(32)).llm
    assert 100 * (1 - ratio) == pytest.approx(saved, abs=0.005)


def test_visual_tokens_that_leave_halfway() -> None:
    half = replace(LLAVA_7B, decoder=replace(LLAVA_7B.decoder, num_layers=16))
    with_them = request_flops(half, Plan.full(16), PUBLISHED, trimmed=False)
    without = replace(PUBLISHED, prompt=prompt_of(35, 0, 25))
    without_them = request_flops(half, Plan.full(16), without, trimmed=False)
    ratio = (with_them.llm + without_them.llm - without_them.head) / untrimmed(Plan.full(32)).llm
    assert 100 * (1 - ratio) == pytest.approx(44.70, abs=0.005)


def test_against_print() -> None:
    """Printed figures count all pairs, no head, and 67 text tokens."""
    request = Request(prompt_of(42, 576, 25), num_generated=1)

    def prefill(plan: Plan) -> float:
        return untrimmed(plan, request, dense=True).prefill / TERA

    assert prefill(Plan.full(32)) == pytest.approx(8.54, abs=0.005)
    assert prefill(shortv_layers("skip_block")) == pytest.approx(4.73, abs=0.005)
    assert prefill(shortv_layers("skip_attention")) == pytest.approx(7.70, abs=0.005)


def test_a_small_model_to_the_last_flop() -> None:
    decoder = DecoderSizes(4, 64, 4, 4, 16, 176, 128)
    sizes = ModelSizes(decoder=decoder, vision=LLAVA_7B.vision)
    request = Request(prompt_of(3, 8, 5), num_generated=4)
    full = request_flops(sizes, Plan.full(4), request, trimmed=False)
    assert (full.prefill, full.decode, full.head) == (6_561_792, 1_259_520, 65_536)
    assert (full.vision, full.projector) == (0, 0)
    skip = policy("skip_block", [2], "generated", num_layers=4).untrimmed
    skipped = request_flops(sizes, skip, request, trimmed=False)
    assert (skipped.prefill, skipped.decode, skipped.head) == (6_561_792, 944_640, 65_536)


def test_a_small_model_of_opts_type_to_the_last_flop() -> None:
    """Four of the 16 rows of a prompt fewer in the FFN; 24 numbers a row before and behind."""
    decoder = DecoderSizes(4, 64, 4, 4, 16, 176, 128, is_gated=False, word_size=24)
    sizes = ModelSizes(decoder=decoder, vision=LLAVA_7B.vision)
    request = Request(prompt_of(3, 8, 5), num_generated=4, num_images=1)
    full = request_flops(sizes, Plan.full(4), request, trimmed=False)
    attention, ffn = 4 * 2 * 64 * 64, 2 * 2 * 64 * 176
    pairs = 4 * 64 * 16 * 17 // 2
    assert full.prefill == 4 * (16 * (attention + ffn) + pairs) + 16 * 2 * 24 * 64
    later = 4 * 64 * (17 + 18 + 19)
    assert full.decode == 4 * (3 * (attention + ffn) + later) + 3 * 2 * 24 * 64
    assert full.head == 4 * (2 * 64 * 24 + 2 * 24 * 128)
    assert full.projector == 576 * (2 * 1024 * 24 + 2 * 24 * 24)
    skip = policy("skip_block", [2], "generated", num_layers=4).untrimmed
    skipped = request_flops(sizes, skip, request, trimmed=False)
    assert full.decode - skipped.decode == 3 * (attention + ffn) + later
    assert skipped.head == full.head


# --- what trimming saves


def test_trimming_the_full_model() -> None:
    trimmed = request_flops(LLAVA_7B, trim(Plan.full(32)), PUBLISHED)
    saved = 1 - trimmed.llm / untrimmed(Plan.full(32)).llm
    assert 100 * saved == pytest.approx(2.57, abs=0.005)


def test_the_head_on_the_last_position_only() -> None:
    others = head_flops(LLAVA_7B.decoder, len(PUBLISHED.prompt) - 1)
    assert 100 * others / untrimmed(Plan.full(32)).llm == pytest.approx(1.97, abs=0.005)


def test_trimming_matters_more_under_policies() -> None:
    skip = policy("skip_attention", {"from": 16, "to": 31}, "all")
    full = untrimmed(Plan.full(32)).prefill
    by_formula = untrimmed(skip.untrimmed).prefill
    as_it_runs = request_flops(LLAVA_7B, skip.plan, PUBLISHED).prefill
    assert 100 * (1 - by_formula / full) == pytest.approx(17.0, abs=0.05)
    assert 100 * (1 - as_it_runs / full) == pytest.approx(52.6, abs=0.05)


# --- an independent count: each row, layer and key, each matrix product in the open

FOLLOWERS = {
    TEXT: {TEXT, VISUAL, LAST, GENERATED},
    VISUAL: {TEXT, VISUAL, LAST, GENERATED},
    LAST: {LAST, GENERATED},
    GENERATED: {GENERATED},
}


def product(rows: int, inner: int, columns: int) -> int:
    """Return the FLOPs of a matrix product: a multiplication and an addition for each term."""
    return 2 * rows * inner * columns


def naive_row(sizes: DecoderSizes, plan: Plan, token_class: TokenClass, num_keys: int) -> int:
    total = 0
    for layer in range(sizes.num_layers):
        cell = plan.cell(layer, token_class)
        if any(plan.cell(layer, c).attention for c in FOLLOWERS[token_class]):
            for _head in range(sizes.num_kv_heads):
                total += 2 * product(1, sizes.hidden_size, sizes.head_dim)
        if cell.attention:
            for _head in range(sizes.num_heads):
                total += product(1, sizes.hidden_size, sizes.head_dim)
                total += sum(2 * product(1, sizes.head_dim, 1) for _key in range(num_keys))
            total += product(1, sizes.num_heads * sizes.head_dim, sizes.hidden_size)
        if cell.ffn is not Ffn.NONE:
            num_up = 2 if sizes.is_gated else 1
            total += num_up * product(1, sizes.hidden_size, sizes.ffn_size)
            total += product(1, sizes.ffn_size, sizes.hidden_size)
    return total


decoders = st.builds(
    DecoderSizes,
    num_layers=st.integers(1, 4),
    hidden_size=st.integers(1, 9),
    num_heads=st.sampled_from([2, 4]),
    num_kv_heads=st.sampled_from([1, 2]),
    head_dim=st.integers(1, 5),
    ffn_size=st.integers(1, 9),
    vocab_size=st.integers(1, 9),
    is_gated=st.booleans(),
)
segments = st.lists(
    st.tuples(st.sampled_from([TEXT, VISUAL]), st.integers(1, 4)), min_size=1, max_size=5
)


@given(st.data(), decoders, segments, st.integers(1, 4), st.booleans())
def test_the_formula_against_a_count_row_by_row(
    data: st.DataObject, sizes: DecoderSizes, shape: Segments, num_generated: int, dense: bool
) -> None:
    plan = data.draw(plans(sizes.num_layers))
    prompt = prompt_classes(shape)
    num_cached = data.draw(st.integers(0, len(prompt) - 1))
    request = Request(prompt, num_generated, num_cached=num_cached)
    flops = request_flops(ModelSizes(sizes, LLAVA_7B.vision), plan, request, dense=dense)
    assert flops.prefill == sum(
        naive_row(sizes, plan, prompt[row], len(prompt) if dense else row + 1)
        for row in range(num_cached, len(prompt))
    )
    assert flops.decode == sum(
        naive_row(sizes, plan, GENERATED, len(prompt) + step + 1)
        for step in range(num_generated - 1)
    )
    assert flops.head == num_generated * product(1, sizes.hidden_size, sizes.vocab_size)


# --- rows, images, caches


def test_prompt_classes() -> None:
    assert prompt_classes([(TEXT, 2), (VISUAL, 1), (TEXT, 2)]) == (TEXT, TEXT, VISUAL, TEXT, LAST)
    assert prompt_classes([(VISUAL, 2)]) == (VISUAL, LAST)
    assert prompt_classes([(TEXT, 1)]) == (LAST,)
    for empty in ([], [(TEXT, 0)]):
        with pytest.raises(ValueError, match="at least one row"):
            prompt_classes(empty)


def test_count_rows() -> None:
    classes = [TEXT, TEXT, VISUAL, TEXT]
    assert count_rows(classes) == {TEXT: Rows(3, 1 + 2 + 4), VISUAL: Rows(1, 3)}
    assert count_rows(classes, first_position=10) == {
        TEXT: Rows(3, 11 + 12 + 14),
        VISUAL: Rows(1, 13),
    }
    assert count_rows(classes, context=7) == {TEXT: Rows(3, 21), VISUAL: Rows(1, 7)}
    assert count_rows([]) == {}


def test_each_encoded_image_counts_and_a_cached_one_does_not() -> None:
    prompt = prompt_classes([(TEXT, 3), (VISUAL, 576), (TEXT, 3), (VISUAL, 576), (TEXT, 3)])
    costs = [
        request_flops(LLAVA_7B, Plan.full(32), Request(prompt, 1, num_images=n)) for n in range(3)
    ]
    assert costs[0].vision == costs[0].projector == 0
    assert costs[2].vision == 2 * costs[1].vision > 0
    assert costs[2].projector == 2 * costs[1].projector > 0
    assert len({cost.llm for cost in costs}) == 1


def test_a_cached_prefix_counts_nothing_but_is_attended_to() -> None:
    plan, num_cached = Plan.full(32), 600
    whole = untrimmed(plan)
    rest = untrimmed(plan, replace(PUBLISHED, num_cached=num_cached))
    prefix = untrimmed(plan, Request(PUBLISHED.prompt[:num_cached], 1))
    assert rest.prefill == whole.prefill - prefix.prefill
    assert (rest.decode, rest.head) == (whole.decode, whole.head)


def test_one_answer_token_needs_no_decode_step() -> None:
    flops = untrimmed(Plan.full(32), replace(PUBLISHED, num_generated=1))
    assert flops.decode == 0
    assert flops.head == head_flops(LLAVA_7B.decoder, 1)


def test_a_list_of_feature_layers_costs_a_wider_projector() -> None:
    config = {"vision_feature_layer": [-2, -5]}
    wide = request_flops(ModelSizes.from_config(config), Plan.full(32), PUBLISHED)
    plain = request_flops(LLAVA_7B, Plan.full(32), PUBLISHED)
    assert wide.projector - plain.projector == product(576, 1024, 4096)
    assert wide.vision == plain.vision


def test_the_tower_by_hand() -> None:
    """Count a tower of 4 patches and a class token, 2 layers of width 3 and FFN 5."""
    tower = replace(LLAVA_7B.vision, hidden_size=3, ffn_size=5, image_size=4, patch_size=2)
    tower = replace(tower, num_channels=1)
    patches = product(4, 1 * 2 * 2, 3)
    attention = 4 * product(5, 3, 3) + product(5, 3, 5) + product(5, 5, 3)
    ffn = product(5, 3, 5) + product(5, 5, 3)
    assert vision_flops(tower, 2) == patches + 2 * (attention + ffn)
    attention = 4 * product(4, 3, 3) + product(4, 3, 4) + product(4, 4, 3)
    ffn = product(4, 3, 5) + product(4, 5, 3)
    without_cls = replace(tower, has_cls=False)
    assert vision_flops(without_cls, 2) == patches + 2 * (attention + ffn)


def test_plans_of_another_depth_are_refused() -> None:
    with pytest.raises(AssertionError):
        request_flops(LLAVA_7B, Plan.full(31), PUBLISHED)
