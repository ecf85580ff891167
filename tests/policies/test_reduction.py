"""Rules that take rows of images away, and what they mean for a model."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from skipserve_policies.catalog import load_catalog
from skipserve_policies.cost import compare, saving, standard_request
from skipserve_policies.faults import faults_of
from skipserve_policies.flops import projector_flops
from skipserve_policies.reduction import Reduction, ReductionMisfitError, make_reduction
from skipserve_policies.resolve import (
    PolicyContradictionError,
    PolicyMisfitError,
    ResolvedPolicy,
    resolve,
    resolve_for,
)
from skipserve_policies.schema import Reducer, ReduceVisual, SkipPolicy
from skipserve_policies.sizes import KNOWN_MODELS, MappingSizes, ModelSizes

pytestmark = pytest.mark.fast

LLAVA_7B = KNOWN_MODELS["llava-1.5-7b"]
MAPPED = replace(LLAVA_7B, projector=MappingSizes())
NO_CLS = replace(LLAVA_7B, vision=replace(LLAVA_7B.vision, has_cls=False))
WITH_CLS = replace(LLAVA_7B, vision=replace(LLAVA_7B.vision, keeps_cls=True))
CATALOG = load_catalog()
REDUCING = [name for name, policy in CATALOG.items() if policy.reduces_images]
SKIP: dict[str, Any] = {"action": "skip_block", "layers": [18], "scope": "generated"}


def rule(**changes: Any) -> dict[str, Any]:
    return {"action": "reduce_visual", "method": "divprune", "keep": 192} | changes


def made(sizes: ModelSizes = LLAVA_7B, **changes: Any) -> Reduction | None:
    return make_reduction(ReduceVisual.model_validate(rule(**changes)), sizes)


def resolved(*rules: dict[str, Any], sizes: ModelSizes = LLAVA_7B) -> ResolvedPolicy:
    return resolve_for("p", SkipPolicy.model_validate({"rules": rules}), sizes)


# --- the language


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"method": "fastv"}, "method: this must be one of visionzip, vispruner, divprune, random"),
        ({"method": "divprun"}, "is it divprune?"),
        ({"keep": 0}, "keep: this must be at least 1"),
        ({"keep": -3}, "keep: this must be at least 1"),
        ({"keep": 1.5}, "keep: this must be a number of rows such as 192, or a share"),
        ({"keep": True}, "keep: this must be a number of rows"),
        ({"keep": "0%"}, "keep: a share of rows lies above 0"),
        ({"keep": "101%"}, "keep: a share of rows lies above 0"),
        ({"keep": "4/3"}, "keep: a share of rows lies above 0"),
        ({"keep": "1/0"}, "keep: this must be a number of rows"),
        ({"keep": "a third"}, "keep: this must be a number of rows"),
        ({"kep": 3}, "kep: this field is not known; is it keep?"),
        ({"layers": [1]}, "layers: this field is not known"),
        ({"scope": "visual"}, "scope: this field is not known"),
        ({"contextual": 3}, "contextual has no meaning for the method divprune"),
        ({"important": "50%"}, "important has no meaning for the method divprune"),
        ({"seed": 0}, "seed has no meaning for the method divprune"),
        ({"method": "random", "seed": -1}, "seed: this must be at least 0"),
        ({"method": "vispruner", "important": "1"}, "important: this must be a number of rows"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_in_plain_words(
    changes: dict[str, Any], fault: str
) -> None:
    stanza = {"rules": [SKIP, rule(**changes)]}
    with pytest.raises(ValidationError) as caught:
        SkipPolicy.model_validate(stanza)
    (told,) = map(str, faults_of(caught.value, SkipPolicy, stanza))
    assert told.startswith("rules.1")
    assert fault in told


def test_a_rule_that_names_no_action_is_told_of_all_that_there_are() -> None:
    for action in ("reduce_visuals", None, 3, ["reduce_visual"]):
        stanza = {"rules": [rule(action=action)]}
        with pytest.raises(ValidationError) as caught:
            SkipPolicy.model_validate(stanza)
        faults = list(map(str, faults_of(caught.value, SkipPolicy, stanza)))
        assert any("skip_block" in fault and "reduce_visual" in fault for fault in faults)


def test_a_rule_comes_back_as_it_was_written() -> None:
    stanza = {"rules": [rule(method="visionzip", keep="2/9", contextual="12.5%"), SKIP]}
    policy = SkipPolicy.model_validate(stanza)
    assert SkipPolicy.model_validate_json(policy.model_dump_json(by_alias=True)) == policy
    assert policy.reduces_images
    assert not SkipPolicy.model_validate({"rules": [SKIP]}).reduces_images


# --- what it means for a model


def test_the_papers_counts_follow_from_the_shares() -> None:
    for share, count, merged in (("1/3", 192, 30), ("2/9", 128, 20), ("1/9", 64, 10)):
        for method in ("visionzip", "vispruner", "divprune", "random"):
            reduction = made(method=method, keep=share)
            assert reduction == made(method=method, keep=count)
            assert reduction is not None
            assert reduction.num_rows == count
        assert made(method="visionzip", keep=share).num_merged == merged  # type: ignore[union-attr]
        assert made(method="vispruner", keep=share).num_important == count // 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("keep", "grid"),
    [
        ("50%", (16, 18)),
        ("1/3", (12, 16)),
        ("1/9", (8, 8)),
        (1, (1, 1)),
        (2, (1, 2)),
        (3, (2, 2)),
        (575, (23, 24)),
    ],
)
def test_a_coarser_grid_has_the_nearest_count(keep: int | str, grid: tuple[int, int]) -> None:
    reduction = made(method="downsample", keep=keep)
    assert reduction is not None
    assert (reduction.grid, reduction.num_rows) == (grid, grid[0] * grid[1])


@pytest.mark.parametrize("method", Reducer)
@pytest.mark.parametrize("keep", ["100%", "1/1", 576, 600])
def test_what_keeps_all_rows_is_the_full_model(method: Reducer, keep: int | str) -> None:
    assert made(method=method, keep=keep) is None
    policy = resolved(rule(method=method, keep=keep))
    assert policy.digest == resolve("full", SkipPolicy(), 32).digest


@pytest.mark.parametrize(
    ("sizes", "method", "reason"),
    [
        (NO_CLS, "visionzip", "the vision tower's class token, which this model's tower does not"),
        (NO_CLS, "vispruner", "the vision tower's class token, which this model's tower does not"),
        (MAPPED, "visionzip", "10 rows that are none of a patch"),
        (MAPPED, "vispruner", "10 rows that are none of a patch"),
        (MAPPED, "downsample", "10 rows that are none of a patch"),
        (WITH_CLS, "visionzip", "the class token's row beside them"),
        (WITH_CLS, "downsample", "the class token's row beside them"),
    ],
)
def test_a_model_that_lacks_what_is_looked_at_is_told_what(
    sizes: ModelSizes, method: str, reason: str
) -> None:
    with pytest.raises(ReductionMisfitError, match=reason):
        made(sizes, method=method, keep="50%")
    with pytest.raises(PolicyMisfitError, match=r"rule 1 \(reduce_visual, .*" + reason):
        resolved(SKIP, rule(method=method, keep="50%"), sizes=sizes)


def test_what_needs_rows_alone_runs_on_any_model() -> None:
    for sizes in (NO_CLS, MAPPED, WITH_CLS):
        for method in ("divprune", "random"):
            reduction = made(sizes, method=method, keep="50%")
            assert reduction is not None
            assert reduction.num_rows == (sizes.rows_per_image + 1) // 2


def test_two_rules_that_reduce_contradict_each_other() -> None:
    with pytest.raises(
        PolicyContradictionError,
        match=r"rule 0 \(reduce_visual, divprune\) and rule 2 \(reduce_visual, random\) both",
    ):
        resolved(rule(), SKIP, rule(method="random"))


def test_a_depth_alone_does_not_tell_what_runs() -> None:
    with pytest.raises(PolicyMisfitError, match="depends on more than the model's depth"):
        resolve("p", SkipPolicy.model_validate({"rules": [rule()]}), 32)


def test_skipping_goes_with_any_of_them() -> None:
    both, skip, reduce = resolved(SKIP, rule()), resolved(SKIP), resolved(rule())
    assert (both.plan, both.reduction) == (skip.plan, reduce.reduction)
    assert len({both.digest, skip.digest, reduce.digest}) == 3
    assert both.layers == {"skip_block": (18,)}
    assert both.scope == "generated"
    assert reduce.scope is None


def test_digests_tell_all_that_shipped_policies_compute_apart() -> None:
    digests = {name: resolve_for(name, policy, LLAVA_7B).digest for name, policy in CATALOG.items()}
    assert len(set(digests.values())) == len(digests)
    assert resolved(rule(method="random")).digest == resolved(rule(method="random", seed=0)).digest
    assert resolved(rule(method="random")).digest != resolved(rule(method="random", seed=1)).digest


# --- what it costs


@pytest.mark.parametrize(("name", "saved"), [("192", 0.5983), ("128", 0.6971), ("64", 0.7957)])
@pytest.mark.parametrize("method", ["visionzip", "vispruner", "divprune", "random"])
def test_what_is_saved_in_the_decoder(method: str, name: str, saved: float) -> None:
    policy = resolve_for("p", CATALOG[f"{method}-{name}"], LLAVA_7B)
    cost = compare(LLAVA_7B, policy, standard_request(LLAVA_7B))
    full, left = cost.full.exact.untrimmed, cost.policy.exact.untrimmed
    assert 1 - left.llm / full.llm == pytest.approx(saved, abs=0.00005)
    assert left.vision == full.vision


def test_choosing_is_counted_with_the_projector() -> None:
    """Of features the projector sees what is left; of its rows all must be there."""
    whole = projector_flops(LLAVA_7B)
    third = whole // 3
    assert projector_flops(LLAVA_7B, made(method="random")) == third
    assert projector_flops(LLAVA_7B, made(method="downsample")) == third
    assert projector_flops(LLAVA_7B, made(method="divprune")) == whole + 2 * 576**2 * 4096
    likeness, attention = 2 * 576**2 * 1024, 2 * 577 * 1024
    assert projector_flops(LLAVA_7B, made(method="vispruner")) == third + likeness + attention
    merging = 2 * (576 - 161) * 30 * 64 - 2 * 30 * 30 * 64
    assert projector_flops(LLAVA_7B, made(method="visionzip")) == third + attention + merging


@pytest.mark.parametrize("name", REDUCING)
def test_a_saving_is_counted_against_all_rows(name: str) -> None:
    policy, request = resolve_for("p", CATALOG[name], LLAVA_7B), standard_request(LLAVA_7B)
    saved = saving(LLAVA_7B, policy.plan, request, policy.reduction)
    assert saved.full_flops == saving(LLAVA_7B, policy.plan, request).planned_flops
    assert compare(LLAVA_7B, policy, request).saved_ratio == saved.saved_ratio > 0.3
