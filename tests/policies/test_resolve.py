"""Which cells a rule touches in a model, how rules compose, and which policies are refused."""

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from skipserve_policies.catalog import load_catalog
from skipserve_policies.plan import Cell, Ffn, Pair, Plan, TokenClass, trim
from skipserve_policies.resolve import (
    CLASSES_OF_SCOPE,
    PolicyContradictionError,
    PolicyMisfitError,
    ResolvedPolicy,
    layers_of,
    resolve,
)
from skipserve_policies.schema import Action, Rule, Scope, SkipPolicy

pytestmark = pytest.mark.fast

TEXT, VISUAL, LAST, GENERATED = TokenClass
IDLE = Cell(attention=False, ffn=Ffn.NONE)


def rule(action: str, layers: Any, scope: str = "all", **more: Any) -> dict[str, Any]:
    return {"action": action, "layers": layers, "scope": scope, **more}


def resolved(*rules: dict[str, Any], num_layers: int = 32) -> ResolvedPolicy:
    return resolve("p", SkipPolicy.model_validate({"rules": rules}), num_layers)


def named(layers: object, num_layers: int) -> list[int]:
    form = Rule.model_validate({"action": "skip_block", "layers": layers})
    return list(layers_of(form.layers, num_layers))


# --- which layers


@pytest.mark.parametrize(
    ("start", "interval", "num_layers", "layers"),
    [
        (16, 3, 32, [18, 21, 24, 27, 30]),
        (0, 3, 32, list(range(3, 31, 3))),
        (0, 2, 32, list(range(2, 31, 2))),
        (16, 3, 40, list(range(18, 37, 3))),
        (16, 1, 20, [17, 18]),
        (18, 3, 32, [21, 24, 27, 30]),
        (0, 31, 33, [31]),
        (0, 2, 4, [2]),
    ],
)
def test_the_papers_rule(start: int, interval: int, num_layers: int, layers: list[int]) -> None:
    """Start is excluded, the first and last block always run, the modulo is absolute."""
    assert named({"start": start, "interval": interval}, num_layers) == layers


@given(st.integers(0, 20), st.integers(1, 8), st.integers(1, 48))
def test_the_papers_rule_word_by_word(start: int, interval: int, num_layers: int) -> None:
    expected = [
        layer
        for layer in range(num_layers)
        if start < layer < num_layers - 1 and layer % interval == 0
    ]
    assume(expected)
    assert named({"start": start, "interval": interval}, num_layers) == expected


@pytest.mark.parametrize(
    ("start", "intervals", "num_layers", "layers"),
    [
        (0, [2, 3], 8, [2, 6]),
        (0, [2, 3, 4], 12, [2, 6, 8]),
        (0, [1, 31], 32, list(range(1, 16))),
        (0, [31, 1], 32, list(range(16, 31))),
        (0, [3, 3, 3], 32, list(range(3, 31, 3))),
        (4, [1, 4], 16, [5, 6, 7, 8, 12]),
    ],
)
def test_a_list_of_intervals_cuts_the_stack_into_equal_segments(
    start: int, intervals: list[int], num_layers: int, layers: list[int]
) -> None:
    assert named({"start": start, "interval": intervals}, num_layers) == layers


def test_lists_and_ranges_are_taken_as_they_stand() -> None:
    assert named([31, 0, 2, 2], 32) == [0, 2, 31]
    assert named({"from": 0, "to": 31}, 32) == list(range(32))
    assert named({"from": 5, "to": 5}, 32) == [5]


@pytest.mark.parametrize(
    ("num_layers", "half", "exit", "third"),
    [
        (32, 16, 25, 11),
        (24, 12, 19, 8),
        (28, 14, 22, 9),
        (30, 15, 23, 10),
        (40, 20, 31, 13),
        (27, 14, 21, 9),
        (5, 3, 4, 2),
    ],
)
def test_a_share_is_so_many_layers_halves_up(
    num_layers: int, half: int, exit: int, third: int
) -> None:
    for share, cut in {"50%": half, "78.125%": exit, "33.3%": third}.items():
        assert named({"from": share, "to": "100%"}, num_layers) == list(range(cut, num_layers))
        assert named({"from": 0, "to": share}, num_layers) == list(range(cut))
        assert named([share], num_layers) == [cut]
        if cut < num_layers - 2:
            inner = list(range(cut + 1, num_layers - 1))
            assert named({"start": share, "interval": 1}, num_layers) == inner


def test_numbers_and_shares_go_together() -> None:
    assert named({"from": 20, "to": "75%"}, 32) == [20, 21, 22, 23]
    assert named({"from": "75%", "to": 26}, 32) == [24, 25, 26]
    assert named([0, "50%", "100%", "99%", 16, "0%"], 32) == [0, 16, 31]
    assert named({"start": "12.5%", "interval": [1, 31]}, 32) == list(range(5, 16))


def test_a_range_leaves_out_multiples() -> None:
    assert named({"from": 15, "to": 24, "except_every": 4}, 32) == [15, 17, 18, 19, 21, 22, 23]
    assert named({"from": "50%", "to": "100%", "except_every": 2}, 8) == [5, 7]


SHARES = st.integers(0, 10**6).map(lambda millionths: f"{millionths / 10**4:.4f}%")


@given(SHARES, SHARES, st.integers(1, 128))
def test_adjoining_shares_cover_a_stack_once(one: str, other: str, num_layers: int) -> None:
    marks = sorted({"0%", "100%", *(mark for mark in (one, other) if mark not in EDGES)}, key=_size)
    covered: list[int] = []
    for first, last in itertools.pairwise(marks):
        with contextlib.suppress(PolicyMisfitError):  # a share of less than half a layer
            covered += named({"from": first, "to": last}, num_layers)
    assert covered == list(range(num_layers))


EDGES = ("0.0000%", "100.0000%")


def _size(share: str) -> float:
    return float(share[:-1])


@given(SHARES, st.integers(1, 128))
def test_a_deeper_model_has_one_layer_more_on_one_side(share: str, num_layers: int) -> None:
    assume(share not in EDGES)
    cuts = [len(_named_or_none({"from": 0, "to": share}, depth)) for depth in _next(num_layers)]
    assert cuts[1] - cuts[0] in (0, 1)
    rests = [
        len(_named_or_none({"from": share, "to": "100%"}, depth)) for depth in _next(num_layers)
    ]
    assert [a + b for a, b in zip(cuts, rests, strict=True)] == _next(num_layers)


def _next(num_layers: int) -> list[int]:
    return [num_layers, num_layers + 1]


def _named_or_none(layers: object, num_layers: int) -> list[int]:
    try:
        return named(layers, num_layers)
    except PolicyMisfitError:
        return []


def test_a_policy_for_one_depth_fits_no_other() -> None:
    policy = SkipPolicy.model_validate({"num_layers": 24, "rules": [rule("skip_block", [1])]})
    assert resolve("p", policy, 24).layers == {"skip_block": (1,)}
    for other in (23, 25, 32):
        with pytest.raises(PolicyMisfitError, match=r"for models with 24 layers alone.* 0 to"):
            resolve("p", policy, other)


@pytest.mark.parametrize(
    ("action", "layers", "num_layers", "message"),
    [
        ("skip_block", {"from": "99%", "to": "100%"}, 10, "the range from 99% to 100% holds none"),
        ("skip_block", {"from": "50%", "to": 3}, 10, "the range from 50% to 3 holds none"),
        ("skip_block", {"from": 9, "to": "50%"}, 10, "from 9 to 50% holds none of the model's 10"),
        ("skip_block", {"from": "50%", "to": 31}, 30, "layer 31 does not exist: the model has"),
        ("skip_block", {"from": 9, "to": 32, "except_every": 32}, 32, "layer 32 does not exist"),
        ("skip_block", {"from": 4, "to": 4, "except_every": 2}, 9, "to 4 except every 2 holds"),
        ("skip_block", {"start": "99%", "interval": 1}, 32, "start 99% (layer 32) with interval 1"),
        ("skip_block", ["50%", 24], 24, "layer 24 does not exist"),
        ("parallel_blocks", ["100%"], 32, "layer 31 is the last of the model"),
        ("skip_block", [3, 24], 24, "layer 24 does not exist: the model has layers 0 to 23"),
        ("skip_ffn", {"from": 16, "to": 31}, 24, "layer 31 does not exist"),
        ("skip_block", {"start": 16, "interval": 3}, 16, "none of the model's 16 layers"),
        ("skip_block", {"start": 30, "interval": 1}, 32, "start 30 with interval 1"),
        ("skip_block", {"start": 0, "interval": [5, 9]}, 4, "interval 5, 9 touches none"),
        ("skip_block", {"start": 0, "interval": 1}, 2, "both excluded"),
        ("parallel_blocks", [31], 32, "layer 31 is the last of the model"),
    ],
)
def test_a_misfit_says_which_rule_and_why(
    action: str, layers: object, num_layers: int, message: str
) -> None:
    with pytest.raises(PolicyMisfitError) as caught:
        resolved(rule("skip_block", [0]), rule(action, layers), num_layers=num_layers)
    assert message in str(caught.value)
    assert f"rule 1 ({action}, scope all)" in str(caught.value)


# --- which cells


@pytest.mark.parametrize(
    ("action", "more", "cell"),
    [
        ("skip_block", {}, IDLE),
        ("skip_ffn", {}, Cell(ffn=Ffn.NONE)),
        ("skip_attention", {}, Cell(attention=False)),
        ("skip_attention", {"shared_norm": True}, Cell(False, Ffn.PARALLEL_SHARED)),
        ("parallel_ffn_attention", {}, Cell(ffn=Ffn.PARALLEL_SHARED)),
        ("parallel_ffn_attention", {"shared_norm": False}, Cell(ffn=Ffn.PARALLEL)),
    ],
)
def test_what_an_action_makes_of_a_cell(action: str, more: dict[str, Any], cell: Cell) -> None:
    plan = resolved(rule(action, [1], **more), num_layers=3).untrimmed
    assert plan.columns == ((Cell(), cell, Cell()),) * 4


def test_a_pair_of_blocks() -> None:
    policy = resolved(rule("parallel_blocks", [1]), num_layers=4)
    pair = (Cell(), Cell(pair=Pair.FIRST), Cell(pair=Pair.SECOND), Cell())
    assert policy.untrimmed.columns == (pair,) * 4
    assert policy.layers == {"parallel_blocks": (1, 2)}


@pytest.mark.parametrize(
    ("scope", "classes"),
    [
        ("generated", [GENERATED]),
        ("answer", [LAST, GENERATED]),
        ("prompt", [TEXT, VISUAL, LAST]),
        ("visual", [VISUAL]),
        ("all", [TEXT, VISUAL, LAST, GENERATED]),
    ],
)
def test_whom_a_scope_touches(scope: str, classes: list[TokenClass]) -> None:
    plan = resolved(rule("skip_block", [1], scope), num_layers=3).untrimmed
    assert [c for c in TokenClass if plan.cell(1, c) == IDLE] == classes
    assert all(plan.cell(layer, c) == Cell() for layer in (0, 2) for c in TokenClass)


def test_every_scope_has_its_classes() -> None:
    assert set(CLASSES_OF_SCOPE) == set(Scope)


def test_no_rules_is_the_full_model() -> None:
    policy = resolved(num_layers=5)
    assert policy.untrimmed == Plan.full(5)
    assert policy.plan == trim(Plan.full(5))
    assert policy.layers == {}
    assert policy.scope is None


def test_what_is_reported() -> None:
    policy = resolved(
        rule("skip_block", [5, 3], "visual"),
        rule("skip_ffn", [1]),
        rule("skip_block", [4, 3], "generated"),
        rule("skip_ffn", [2], "visual"),
    )
    assert policy.layers == {"skip_block": (3, 4, 5), "skip_ffn": (1, 2)}
    assert policy.scope == "visual+all+generated"
    assert policy.digest == policy.plan.digest == trim(policy.untrimmed).digest


# --- composing


def test_plain_skips_add_up() -> None:
    both = resolved(rule("skip_ffn", [1, 2]), rule("skip_attention", [2, 3]))
    assert [both.untrimmed.cell(layer, TEXT) for layer in (1, 2, 3)] == [
        Cell(ffn=Ffn.NONE),
        IDLE,
        Cell(attention=False),
    ]
    assert both.layers == {"skip_ffn": (1, 2), "skip_attention": (2, 3)}


def test_policies_that_compute_the_same_have_the_same_digest() -> None:
    block = resolved(rule("skip_block", [5, 6]))
    halves = resolved(rule("skip_ffn", [6, 5]), rule("skip_attention", {"from": 5, "to": 6}))
    layer_by_layer = resolved(rule("skip_block", [5]), rule("skip_block", [6, 5]))
    scope_by_scope = resolved(*(rule("skip_block", [5, 6], s) for s in ("prompt", "answer")))
    by_interval = resolved(rule("skip_block", {"start": 15, "interval": 2}, "visual"))
    by_list = resolved(rule("skip_block", list(range(16, 31, 2)), "visual"))
    assert block.digest == halves.digest == layer_by_layer.digest == scope_by_scope.digest
    assert by_interval.digest == by_list.digest != block.digest


def test_where_tokens_are_scored_every_row_has_logits() -> None:
    """By the same rules; what runs has another key, the policy the same digest."""
    for name in ("full", "shortv-7b", "skip-attention-from-16-all", "exit-after-24"):
        policy = resolve(name, load_catalog()[name], 32)
        assert policy.scoring_plan == trim(policy.untrimmed, wanted=frozenset(TokenClass))
        assert policy.scoring_plan.key != policy.plan.key
        assert policy.digest == policy.plan.digest
        assert policy.plan_for(scores=True) is policy.scoring_plan
        assert policy.plan_for(scores=False) is policy.plan


def test_what_trimming_removes_anyway_does_not_tell_policies_apart() -> None:
    """In the last layer no visual row runs anything under any policy."""
    assert resolved(rule("skip_ffn", [31], "visual")).digest == resolved().digest


@given(st.data())
def test_the_order_of_rules_does_not_matter(data: st.DataObject) -> None:
    actions = st.sampled_from([a for a in Action if a is not Action.PARALLEL_BLOCKS])
    rules = data.draw(
        st.lists(
            st.builds(
                rule,
                actions.map(str),
                st.lists(st.integers(0, 3), min_size=1),
                st.sampled_from([s.value for s in Scope]),
            ),
            max_size=3,
        )
    )
    outcomes = set()
    for order in itertools.permutations(rules):
        try:
            outcomes.add(resolved(*order, num_layers=4).digest)
        except PolicyContradictionError:
            outcomes.add("contradiction")
    assert len(outcomes) == 1


CONTRADICTIONS = [
    (rule("skip_ffn", [2]), rule("parallel_ffn_attention", [2])),
    (rule("skip_attention", [2]), rule("parallel_ffn_attention", [2], shared_norm=False)),
    (rule("skip_block", [2]), rule("parallel_ffn_attention", [2])),
    (rule("skip_attention", [2]), rule("skip_attention", [2], shared_norm=True)),
    (rule("skip_ffn", [2]), rule("skip_attention", [2], shared_norm=True)),
    (
        rule("parallel_ffn_attention", [2]),
        rule("parallel_ffn_attention", [2], shared_norm=False),
    ),
    (rule("parallel_blocks", [1]), rule("skip_block", [2])),
    (rule("parallel_blocks", [2]), rule("skip_ffn", [2], "visual")),
    (rule("parallel_blocks", [1]), rule("parallel_blocks", [2])),
    (rule("parallel_blocks", [2]), rule("parallel_blocks", [2])),
]


@pytest.mark.parametrize(("one", "other"), CONTRADICTIONS)
@pytest.mark.parametrize("is_swapped", [False, True])
def test_a_contradiction_names_both_rules_and_the_layer(
    one: dict[str, Any], other: dict[str, Any], is_swapped: bool
) -> None:
    rules = (other, one) if is_swapped else (one, other)
    with pytest.raises(PolicyContradictionError) as caught:
        resolved(rule("skip_block", [0]), *rules)
    message = str(caught.value)
    for index, stated in enumerate(rules, start=1):
        assert f"rule {index} ({stated['action']}, scope {stated['scope']})" in message
    assert "at layer 2" in message


def test_rules_that_never_meet_do_not_contradict() -> None:
    policy = resolved(
        rule("skip_block", [2], "visual"),
        rule("parallel_ffn_attention", [2], "answer"),
        rule("parallel_blocks", [2], "prompt") | {"layers": [4]},
    )
    assert policy.untrimmed.cell(2, VISUAL) == IDLE
    assert policy.untrimmed.cell(2, LAST) == Cell(ffn=Ffn.PARALLEL_SHARED)
    assert policy.untrimmed.cell(2, TEXT) == Cell()


def test_a_rule_stated_twice_is_no_contradiction() -> None:
    for action in ("skip_block", "skip_attention", "parallel_ffn_attention"):
        assert resolved(*[rule(action, [2])] * 2).digest == resolved(rule(action, [2])).digest


def test_overlapping_pairs_of_one_rule() -> None:
    with pytest.raises(PolicyContradictionError, match=r"rule 0 .*pairs .*overlap at layer 18"):
        resolved(rule("parallel_blocks", {"start": 16, "interval": 1}))


def test_adjacent_pairs_do_not_overlap() -> None:
    policy = resolved(rule("parallel_blocks", {"start": 16, "interval": 2}))
    assert policy.layers == {"parallel_blocks": tuple(range(18, 32))}
