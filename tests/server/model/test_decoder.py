"""Every plan against the formulas, in either kind of blocks: whole, in pieces, in mixed batches."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from catalog_parts import skipping_policies
from decoder_subject import (
    ACTIONS,
    Subject,
    answer_rows,
    assert_close,
    make_rows,
    reference_logits,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_errors import assert_as_exact_as
from model_batches import (
    Piece,
    build_batch,
    forward,
    poisoned_cache,
    run_in_pieces,
    run_whole,
    scattered_pages,
)
from plan_strategies import plans
from reference_llava import steps_of_policy
from reference_opt import ReferenceOpt
from tiny_llava import DecoderType, make_checkpoint
from tiny_opt import OptShape
from torch import Tensor

from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve.model.scoring import Scoring
from skipserve.model.weights import Weights
from skipserve_policies.plan import Plan, trim
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import Rule, Scope, SkipPolicy

FEW_LAYERS = 6
CATALOG = skipping_policies()
OF_SCOPE_GENERATED = [
    name
    for name, policy in CATALOG.items()
    if policy.rules
    and all(getattr(rule, "scope", None) is Scope.GENERATED for rule in policy.rules)
]


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Subject:
    return Subject(tmp_path_factory.mktemp("models") / "shallow", FEW_LAYERS, device)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Subject:
    uses_triton = device.type == "cuda"
    folder = tmp_path_factory.mktemp("models") / "deep"
    return Subject(folder, 32, device, uses_triton=uses_triton)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Subject:
    """In the Triton kernels, whose interpreter is slow: less of everything."""
    folder = tmp_path_factory.mktemp("models") / "fused"
    return Subject(folder, num_layers=2, device=device, uses_triton=True)


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Subject:
    return Subject(tmp_path_factory.mktemp("models") / "opt", FEW_LAYERS, device, opt=OptShape())


@pytest.fixture(scope="module")
def opt_350m(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Subject:
    """Post-norm, with an embedding of a width of its own."""
    form = OptShape(is_post_norm=True, word_size=64)
    return Subject(tmp_path_factory.mktemp("models") / "350m", FEW_LAYERS, device, opt=form)


@pytest.fixture
def subject(request: pytest.FixtureRequest, device: torch.device) -> Subject:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Subject)
    return found


FUSED = pytest.param("fused", marks=pytest.mark.kernels)
OPT = ("opt", "opt_350m")
with_all_blocks = pytest.mark.parametrize("subject", ["shallow", FUSED, *OPT], indirect=True)


@pytest.mark.parametrize("name", CATALOG)
def test_a_policy_of_the_catalog_follows_its_formula(deep: Subject, name: str) -> None:
    resolved = resolve(name, CATALOG[name], num_layers=32)
    rows = make_rows("ttvvvvtt", num_generated=3)
    embedded = deep.reference.embed(rows.ids, rows.is_visual, rows.features)
    steps = steps_of_policy(CATALOG[name], num_layers=32)
    expected = deep.reference.logits(embedded, rows.classes, steps)[answer_rows(rows)]
    assert_close(run_whole(deep.llava, rows, resolved.plan, answer_rows(rows)), expected)
    assert_close(run_in_pieces(deep.llava, rows, resolved.plan, [8, 9, 10]), expected)


@pytest.mark.fast
@with_all_blocks
def test_the_full_model_follows_its_formula(subject: Subject) -> None:
    rows = make_rows("tvvt", num_generated=2)
    plan = trim(Plan.full(subject.num_layers))
    expected = reference_logits(subject, rows, plan)[answer_rows(rows)]
    assert_close(run_whole(subject.llava, rows, plan, answer_rows(rows)), expected)
    assert_close(run_in_pieces(subject.llava, rows, plan, [2, 4, 5])[1:], expected)


@pytest.mark.parametrize(
    "subject", [pytest.param("shallow", marks=pytest.mark.fast), FUSED, *OPT], indirect=True
)
@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: "-".join(map(str, action.values())))
def test_an_action_follows_its_formula(
    subject: Subject, action: dict[str, Any], scope: Scope
) -> None:
    num_layers = subject.num_layers
    is_pair = action["action"] == "parallel_blocks"
    layers = [num_layers - 2] if is_pair else [0, num_layers - 1]
    policy = SkipPolicy(rules=(Rule(**action, layers=layers, scope=scope),))
    resolved = resolve("one rule", policy, num_layers)
    rows = make_rows("vvtttv", num_generated=2)
    embedded = subject.reference.embed(rows.ids, rows.is_visual, rows.features)
    steps = steps_of_policy(policy, num_layers)
    expected = subject.reference.logits(embedded, rows.classes, steps)
    wanted = answer_rows(rows)
    assert_close(run_whole(subject.llava, rows, resolved.plan, wanted), expected[wanted])
    untrimmed = run_whole(subject.llava, rows, resolved.untrimmed, range(len(rows)))
    assert_close(untrimmed, expected)


def test_rules_compose(shallow: Subject) -> None:
    rules = (
        Rule(action="skip_attention", layers=[0, 2], scope="visual"),
        Rule(action="skip_ffn", layers=[2, 3], scope="visual"),
        Rule(action="parallel_ffn_attention", layers=[1], scope="answer", shared_norm=False),
        Rule(action="parallel_blocks", layers=[3], scope="generated"),
        Rule(action="skip_block", layers=[5], scope="prompt"),
    )
    policy = SkipPolicy(rules=rules)
    rows = make_rows("tvvtvt", num_generated=2)
    embedded = shallow.reference.embed(rows.ids, rows.is_visual, rows.features)
    steps = steps_of_policy(policy, FEW_LAYERS)
    wanted = answer_rows(rows)
    expected = shallow.reference.logits(embedded, rows.classes, steps)[wanted]
    plan = resolve("several rules", policy, FEW_LAYERS).plan
    assert_close(run_whole(shallow.llava, rows, plan, wanted), expected)


def prompts(subject: Subject) -> st.SearchStrategy[str]:
    return st.text(alphabet="tv", min_size=1, max_size=5 if subject.uses_triton else 9)


def effort(subject: Subject, max_examples: int) -> settings:
    is_opt = isinstance(subject.reference, ReferenceOpt)
    return settings(max_examples=max_examples // (5 if subject.uses_triton else 1 + 2 * is_opt))


@with_all_blocks
def test_any_plan_whole_and_in_pieces_equals_the_formulas(subject: Subject) -> None:
    @effort(subject, max_examples=60)
    @given(
        plan=plans(subject.num_layers),
        prompt=prompts(subject),
        num_generated=st.integers(0, 3),
        data=st.data(),
    )
    def check(plan: Plan, prompt: str, num_generated: int, data: st.DataObject) -> None:
        rows = make_rows(prompt, num_generated, seed=len(prompt))
        wanted = answer_rows(rows)
        chunks = data.draw(st.sets(st.integers(1, max(1, len(prompt) - 1)))) - {len(prompt)}
        cuts = sorted(chunks | set(range(len(prompt), len(rows))))
        expected = reference_logits(subject, rows, plan)[wanted]
        assert_close(run_whole(subject.llava, rows, trim(plan), wanted), expected)
        in_pieces = run_in_pieces(subject.llava, rows, trim(plan), cuts)[-len(wanted) :]
        assert_close(in_pieces, expected)

    check()


@with_all_blocks
def test_sequences_of_several_plans_share_a_forward(subject: Subject) -> None:
    """Those that are a step ahead answer, in the second of three, while the others read."""

    @effort(subject, max_examples=40)
    @given(
        some=st.lists(
            st.tuples(plans(subject.num_layers), prompts(subject), st.booleans()),
            min_size=2,
            max_size=3,
        )
    )
    def check(some: list[tuple[Plan, str, bool]]) -> None:
        lengths = [len(prompt) + 1 for _, prompt, _ in some]
        cache = poisoned_cache(subject.llava, *lengths)
        steps: list[list[tuple[Piece, Tensor]]] = [[], [], []]
        tables = scattered_pages(*lengths)
        for seed, ((plan, prompt, is_ahead), pages) in enumerate(zip(some, tables, strict=True)):
            rows = make_rows(prompt, num_generated=1, seed=seed)
            first, second = reference_logits(subject, rows, plan)[answer_rows(rows)]
            now = 0 if is_ahead else 1
            steps[now].append((Piece(rows, trim(plan), 0, len(prompt), pages), first))
            steps[now + 1].append((Piece(rows, trim(plan), len(prompt), len(rows), pages), second))
        for step in filter(None, steps):
            pieces, expected = zip(*step, strict=True)
            ends = accumulate(piece.stop - piece.start for piece in pieces)
            found = forward(subject.llava, pieces, [end - 1 for end in ends], cache)
            for logits, wanted in zip(found, expected, strict=True):
                assert_close(logits, wanted)

    check()


def test_every_policy_follows_its_formula_with_biases_on_queries_keys_and_values(
    tmp_path: Path, device: torch.device
) -> None:
    uses_triton = device.type == "cuda"
    subject = Subject(tmp_path, 32, device, uses_triton=uses_triton, decoder=DecoderType.QWEN2)
    rows = make_rows("tvvtt", num_generated=2)
    embedded = subject.reference.embed(rows.ids, rows.is_visual, rows.features)
    for name, policy in CATALOG.items():
        plan = resolve(name, policy, num_layers=32).plan
        steps = steps_of_policy(policy, num_layers=32)
        expected = subject.reference.logits(embedded, rows.classes, steps)[answer_rows(rows)]
        assert_close(run_in_pieces(subject.llava, rows, plan, [2, 5, 6])[1:], expected)
        assert_close(run_whole(subject.llava, rows, plan, answer_rows(rows)), expected)


@pytest.mark.kernels
def test_the_kernels_add_biases_to_queries_keys_and_values(
    tmp_path: Path, device: torch.device
) -> None:
    subject = Subject(tmp_path, 2, device, uses_triton=True, decoder=DecoderType.QWEN2)
    rows = make_rows("vtv", num_generated=2)
    embedded = subject.reference.embed(rows.ids, rows.is_visual, rows.features)
    for action in ({}, ACTIONS[3], ACTIONS[5]):
        rules = (Rule(**action, layers=[0], scope="visual"),) if action else ()
        policy = SkipPolicy(rules=rules)
        steps = steps_of_policy(policy, num_layers=2)
        expected = subject.reference.logits(embedded, rows.classes, steps)[answer_rows(rows)]
        plan = resolve("one rule", policy, num_layers=2).plan
        assert_close(run_in_pieces(subject.llava, rows, plan, [3, 4]), expected)


@pytest.mark.kernels
@pytest.mark.parametrize("actions", [({},) * 2, ({}, *ACTIONS)], ids=["full", "all"])
def test_16_bit_kernels_are_as_exact_as_plain_operations(
    tmp_path: Path, actions: tuple[dict[str, Any], ...], device: torch.device
) -> None:
    """Of prompts and then of answers, whose middle layer does one thing or everything."""
    sizes = {"hidden": 512, "ffn": 1408} if device.type == "cuda" else {"hidden": 64, "ffn": 96}
    make_checkpoint(tmp_path, num_layers=3, num_heads=4, **sizes)
    tables = scattered_pages(*[6] * len(actions))
    pieces = [
        Piece(make_rows("ttttt", 1, seed), _middle(action), 0, 6, pages)
        for seed, (action, pages) in enumerate(zip(actions, tables, strict=True))
    ]
    fused, plain, exact = (
        _logits(_in_type(tmp_path, device, dtype, uses_triton=uses_triton), pieces)
        for dtype, uses_triton in (
            (torch.bfloat16, True),
            (torch.bfloat16, False),
            (torch.float32, False),
        )
    )
    assert_as_exact_as(fused.bfloat16(), plain.bfloat16(), exact.double())


def _middle(action: dict[str, Any]) -> Plan:
    rules = (Rule(**action, layers=[1], scope="all"),) if action else ()
    return resolve("middle", SkipPolicy(rules=rules), 3).plan


def _in_type(folder: Path, device: torch.device, dtype: torch.dtype, *, uses_triton: bool) -> Llava:
    """Load a model that computes in some type, its weights rounded to 16 bits."""
    with Weights(folder, device, torch.bfloat16, arithmetic=dtype) as weights:
        config = ModelConfig.from_folder(folder)
        return Llava.assemble(config, weights, uses_triton=uses_triton)


def _logits(model: Llava, pieces: Sequence[Piece]) -> Tensor:
    """Return the logits of the last row of each prompt, and of the row behind it."""
    cache = poisoned_cache(model, *[piece.stop for piece in pieces])
    prompts = [replace(piece, stop=piece.stop - 1) for piece in pieces]
    ends = accumulate(piece.stop for piece in prompts)
    first = forward(model, prompts, [end - 1 for end in ends], cache)
    answers = [replace(piece, start=piece.stop - 1) for piece in pieces]
    return torch.cat([first, forward(model, answers, range(len(answers)), cache)])


@pytest.mark.fast
@settings(max_examples=15)
@given(plan=plans(FEW_LAYERS))
def test_trimming_changes_no_wanted_logit(shallow: Subject, plan: Plan) -> None:
    rows = make_rows("tvvt", num_generated=2)
    wanted = answer_rows(rows)
    untrimmed = run_whole(shallow.llava, rows, plan, wanted)
    assert_close(run_whole(shallow.llava, rows, trim(plan), wanted), untrimmed)


@pytest.mark.fast
@pytest.mark.parametrize("name", OF_SCOPE_GENERATED)
def test_in_scope_generated_the_first_token_is_the_full_models(deep: Subject, name: str) -> None:
    plan = resolve(name, CATALOG[name], num_layers=32).plan
    rows = make_rows("ttvvt", num_generated=0)
    full = run_whole(deep.llava, rows, trim(Plan.full(32)), [4])
    assert torch.equal(run_whole(deep.llava, rows, plan, [4]), full)


@pytest.mark.fast
@with_all_blocks
def test_a_forward_scores_what_its_logits_say(subject: Subject) -> None:
    """Of rows in any order, beside the wanted logits, which are what they are without."""
    rows, plan = make_rows("tvvttv", num_generated=2), Plan.full(subject.num_layers)
    scored, device = [5, 0, 2, 3], subject.llava.device
    tokens = torch.tensor([7, 250, 9, 9], device=device)
    scoring = Scoring(torch.tensor(scored, device=device), tokens, num_top=4)
    (pages,) = scattered_pages(len(rows))
    batch = build_batch([Piece(rows, plan, 0, len(rows), pages)], [7], device)
    cache = poisoned_cache(subject.llava, len(rows))
    logits = subject.llava.forward(replace(batch, scoring=scoring), cache)
    expected = reference_logits(subject, rows, plan)
    assert_close(logits.cpu(), expected[[7]])
    own, ranks, top_ids, top = (part.cpu() for part in scoring.result())
    logprobs = expected[scored].log_softmax(-1)
    assert_close(own, logprobs.gather(1, tokens.cpu()[:, None])[:, 0])
    assert_close(top, logprobs.sort(descending=True).values[:, :4])
    assert_close(logprobs.gather(1, top_ids), top.double())
    assert ((ranks == 1) == (top_ids[:, 0] == tokens.cpu())).all()


@pytest.mark.fast
def test_a_forward_may_want_no_logits(shallow: Subject) -> None:
    rows = make_rows("tvvt", num_generated=0)
    assert run_whole(shallow.llava, rows, trim(Plan.full(FEW_LAYERS)), []).shape == (0, 320)


@pytest.mark.fast
@pytest.mark.parametrize(("dtype", "hidden"), [(torch.float32, 32), (torch.bfloat16, 512)])
def test_a_cache_is_as_large_as_is_said(tmp_path: Path, dtype: torch.dtype, hidden: int) -> None:
    make_checkpoint(tmp_path, num_layers=2, num_kv_heads=2, hidden=hidden)
    model = Llava.load(tmp_path, torch.device("cpu"), dtype)
    cache = model.new_cache(num_pages=3, page_size=5)
    assert cache.page_size == 5
    num_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert num_bytes == 15 * model.cache_bytes_per_token()
