"""The decoder in Triton kernels, run by their interpreter, against the formulas."""

from typing import Any

import pytest
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
from model_batches import (
    Piece,
    build_batch,
    poisoned_cache,
    run_in_pieces,
    run_whole,
    scattered_pages,
)
from plan_strategies import plans
from reference_llava import steps_of_policy

from skipserve_policies.plan import Plan, trim
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import Rule, Scope, SkipPolicy

pytestmark = pytest.mark.kernels

NUM_LAYERS = 2
# The least that the kernels take: heads of 16.
HIDDEN = 64


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("models") / "fused"
    return Subject(folder, NUM_LAYERS, hidden=HIDDEN, uses_triton=True)


@pytest.mark.fast
def test_the_full_model_follows_its_formula(subject: Subject) -> None:
    rows = make_rows("tvvt", num_generated=2, hidden=HIDDEN)
    plan = trim(Plan.full(NUM_LAYERS))
    expected = reference_logits(subject, rows, plan)[answer_rows(rows)]
    assert_close(run_whole(subject.llava, rows, plan, answer_rows(rows)), expected)
    assert_close(run_in_pieces(subject.llava, rows, plan, [2, 4, 5])[1:], expected)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: "-".join(map(str, action.values())))
def test_an_action_follows_its_formula(
    subject: Subject, action: dict[str, Any], scope: Scope
) -> None:
    layers = [0] if action["action"] == "parallel_blocks" else [0, 1]
    policy = SkipPolicy(rules=(Rule(**action, layers=layers, scope=scope),))
    resolved = resolve("one rule", policy, NUM_LAYERS)
    rows = make_rows("vvttv", num_generated=2, hidden=HIDDEN)
    embedded = subject.reference.embed(rows.ids, rows.is_visual, rows.features)
    steps = steps_of_policy(policy, NUM_LAYERS)
    expected = subject.reference.logits(embedded, rows.classes, steps)
    wanted = answer_rows(rows)
    assert_close(run_whole(subject.llava, rows, resolved.plan, wanted), expected[wanted])
    untrimmed = run_whole(subject.llava, rows, resolved.untrimmed, range(len(rows)))
    assert_close(untrimmed, expected)


prompts = st.text(alphabet="tv", min_size=1, max_size=5)


@settings(max_examples=12)
@given(plan=plans(NUM_LAYERS), prompt=prompts, data=st.data())
def test_any_plan_whole_and_in_pieces_equals_the_formulas(
    subject: Subject, plan: Plan, prompt: str, data: st.DataObject
) -> None:
    rows = make_rows(prompt, num_generated=1, seed=len(prompt), hidden=HIDDEN)
    wanted = answer_rows(rows)
    chunks = data.draw(st.sets(st.integers(1, max(1, len(prompt) - 1)), max_size=2))
    cuts = sorted((chunks - {len(prompt)}) | {len(prompt)})
    expected = reference_logits(subject, rows, plan)[wanted]
    assert_close(run_whole(subject.llava, rows, trim(plan), wanted), expected)
    in_pieces = run_in_pieces(subject.llava, rows, trim(plan), cuts)[-len(wanted) :]
    assert_close(in_pieces, expected)


@settings(max_examples=8)
@given(some=st.lists(st.tuples(plans(NUM_LAYERS), prompts), min_size=2, max_size=3))
def test_sequences_of_several_plans_share_a_forward(
    subject: Subject, some: list[tuple[Plan, str]]
) -> None:
    """Rows alone in their sequence come first, as in a step of the engine, or between chunks."""
    pieces, expected = [], []
    lengths = [len(prompt) + 1 for _, prompt in some]
    cache = poisoned_cache(subject.llava, *lengths)
    for seed, ((plan, prompt), pages) in enumerate(
        zip(some, scattered_pages(*lengths), strict=True)
    ):
        rows = make_rows(prompt, num_generated=1, seed=seed, hidden=HIDDEN)
        expected.append(reference_logits(subject, rows, plan)[answer_rows(rows)])
        is_ahead = seed != 1
        if is_ahead:
            subject.llava.forward(
                build_batch([Piece(rows, trim(plan), 0, len(prompt), pages)], []), cache
            )
        start, stop = (len(prompt), len(rows)) if is_ahead else (0, len(prompt))
        pieces.append(Piece(rows, trim(plan), start, stop, pages))
    ends = [piece.stop - piece.start for piece in pieces]
    last = [sum(ends[: place + 1]) - 1 for place in range(len(ends))]
    logits = subject.llava.forward(build_batch(pieces, last), cache)
    for place, row in enumerate(logits):
        assert_close(row, expected[place][0 if place == 1 else 1])
