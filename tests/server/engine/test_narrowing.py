"""Requests of whose prompts visual rows leave: known answers, in chunks, in crowds, and again."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from golden_dropping import Loaded, load_golden, note_kept
from golden_engine import GoldenModel, answers
from golden_llava import PROMPTS, SEEDS, SIZES, make_golden_checkpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operation_counts import count_operations
from reference_drops import Drop, DroppingReference
from reference_llava import steps_of_policy
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import Executed
from skipserve.engine.request import Request
from skipserve.errors import InvalidRequestError
from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache
from skipserve.model.llava import Llava
from skipserve_policies import flops
from skipserve_policies.narrowing import Narrowing, Stage
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import Dropper, SkipPolicy

pytestmark = pytest.mark.fast

FASTV = Narrowing(Dropper.FASTV, (Stage(2, 18),))
VTW = Narrowing(Dropper.VTW, (Stage(4, 0),))
RANDOM = Narrowing(Dropper.RANDOM, (Stage(3, 10),), seed=5)
DART = Narrowing(Dropper.DART, (Stage(2, 18),))
PYRAMID = Narrowing(Dropper.PYRAMIDDROP, (Stage(2, 18), Stage(4, 9), Stage(6, 4)), renumbers=True)
SPARSE = Narrowing(Dropper.SPARSEVLM, (Stage(2, 18), Stage(4, 12), Stage(6, 6)), renumbers=True)
EVERY = (None, FASTV, VTW, RANDOM, DART, PYRAMID, SPARSE, replace(SPARSE, renumbers=False))
BEFORE, AFTER = (1, 45, 8, 99, 23), (7, 52, 3, 120, 31, 66, 14)


@pytest.fixture(scope="module", params=SIZES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_golden(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_golden("plain", tmp_path_factory.mktemp("plain"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, ...]]]:
    """The visual rows that were settled on, by sequence, stage by stage."""
    return note_kept(monkeypatch)


# --- known answers


def test_the_known_answers_alone(loaded: Loaded, kept: list[list[tuple[int, ...]]]) -> None:
    assert len(loaded.golden) == 12
    for golden in loaded.golden:
        request = loaded.request(golden)
        assert answers(loaded.engine(), request)[request.id] == list(golden.tokens)
        assert not golden.narrowing or tuple(kept.pop()) == golden.kept
        assert not kept


@pytest.mark.parametrize("max_rows", [1, 7, 16, 43])
def test_the_known_answers_in_chunks(
    loaded: Loaded, max_rows: int, kept: list[list[tuple[int, ...]]]
) -> None:
    for golden in loaded.golden:
        request = loaded.request(golden)
        engine = loaded.engine(max_batch_tokens=max_rows, page_size=4)
        assert answers(engine, request)[request.id] == list(golden.tokens)
        assert not golden.narrowing or tuple(kept.pop()) == golden.kept


@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.parametrize("max_rows", [9, 64, 512])
def test_the_known_answers_together(loaded: Loaded, max_rows: int, looks_ahead: bool) -> None:
    engine = loaded.engine(max_batch_tokens=max_rows, page_size=4, looks_ahead=looks_ahead)
    found = answers(engine, *map(loaded.request, loaded.golden))
    assert found == {golden.name: list(golden.tokens) for golden in loaded.golden}


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_answers_stay_though_pages_run_out(
    loaded: Loaded, looks_ahead: bool, kept: list[list[tuple[int, ...]]]
) -> None:
    """What was ranked once is not ranked again."""
    requests = [
        loaded.asker.ask(golden.name, *PROMPTS[golden.prompt], narrowing=golden.narrowing)
        for golden in loaded.golden
        if golden.prompt == "text-first"
    ]
    long = [replace(it, sampling=replace(it.sampling, max_tokens=60)) for it in requests]
    alone = {it.id: answers(loaded.engine(), it)[it.id] for it in long}
    settled = sorted(map(tuple, kept))
    kept.clear()
    engine = loaded.engine(
        max_batch_tokens=64,
        page_size=4,
        looks_ahead=looks_ahead,
        kv_cache_bytes=40 * loaded.model.cache_bytes_per_token() * 4,
    )
    assert answers(engine, *long) == alone
    assert engine.state.num_preemptions > 0
    assert sorted(map(tuple, kept)) == settled


# --- any answers


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> DroppingReference:
    folder = make_golden_checkpoint(
        tmp_path_factory.mktemp("it"), SIZES["plain"], SEEDS["plain"][0]
    )
    return DroppingReference(folder, num_heads=4, num_kv_heads=4)


TEXTS = st.lists(st.integers(3, 120), min_size=1, max_size=6).map(tuple)
RULES = [
    (),
    ({"action": "skip_ffn", "layers": [5], "scope": "all"},),
    ({"action": "parallel_ffn_attention", "layers": [4, 7], "scope": "prompt"},),
    ({"action": "skip_block", "layers": [6], "scope": "answer"},),
]


@st.composite
def narrowings(draw: st.DrawFn) -> Narrowing:
    """Draw one of the plain model of known answers, whose images have 36 rows."""
    method = draw(st.sampled_from([it for it in Dropper if it is not Dropper.RANDOM]))
    num_stages = draw(st.integers(1, 3)) if method in (Dropper.PYRAMIDDROP, SPARSE.method) else 1
    layers = sorted(draw(st.sets(st.integers(1, 6), min_size=num_stages, max_size=num_stages)))
    keeps = draw(st.lists(st.integers(1, 37), min_size=num_stages, max_size=num_stages))
    stages = tuple(map(Stage, layers, [0] if method is Dropper.VTW else keeps))
    return Narrowing(method, stages, draw(st.booleans()))


@settings(max_examples=40)
@given(
    narrowings(),
    st.lists(TEXTS, min_size=2, max_size=3),
    st.sampled_from(RULES),
    st.sampled_from([5, 17, 512]),
)
def test_any_answer_is_that_of_the_formulas(
    plain: Loaded,
    reference: DroppingReference,
    narrowing: Narrowing,
    texts: list[tuple[int, ...]],
    rules: tuple[dict[str, object], ...],
    max_rows: int,
) -> None:
    """Which rows are left, and greedy tokens, where no near tie decides."""
    policy = SkipPolicy.model_validate({"rules": rules})
    plan = resolve("it", policy, 8).plan
    request = plain.asker.ask("it", *texts, narrowing=narrowing, plan=plan, max_tokens=3)
    with pytest.MonkeyPatch.context() as patch:
        noted = note_kept(patch)
        tokens = answers(plain.engine(max_batch_tokens=max_rows, page_size=4), request)["it"]
    drop = Drop(
        narrowing.method.value,
        tuple((it.layer, it.num_rows * len(request.images)) for it in narrowing.stages),
        narrowing.renumbers,
    )
    ids = torch.tensor([*request.prompt_ids, *tokens])
    is_visual = torch.from_numpy(request.class_array == TokenClass.VISUAL)
    is_visual = torch.cat([is_visual, torch.zeros(3, dtype=torch.bool)])
    features = plain.rows.repeat(len(request.images), 1)
    classes = [*request.token_classes, *[TokenClass.GENERATED] * 3]
    embedded = reference.embed(ids, is_visual, features)
    logits, left = reference.run(embedded, classes, steps_of_policy(policy, 8), drop)
    assume(reference.margin > 1e-4)
    assert list(map(tuple, noted)) == ([tuple(left)] if left else [])
    for row, token in zip(logits[-4:-1], tokens, strict=True):
        best, other = row.topk(2).values
        assert int(row.argmax()) == token or best - other < 1e-3


# --- other requests


def _crowd(plain: Loaded) -> Iterator[Request]:
    """Yield requests with no image, one and two, of every kind."""
    for number, narrowing in enumerate(EVERY):
        for texts in ((BEFORE,), (BEFORE, AFTER), ((), (3, 4), AFTER), (BEFORE, ())):
            name = f"{number} {len(texts)} {len(texts[-1])}"
            if texts[-1]:
                yield plain.asker.ask(name, *texts, narrowing=narrowing, max_tokens=4)


@pytest.mark.parametrize("limits", [{}, {"max_batch_tokens": 13, "page_size": 4}])
def test_a_crowd_gets_what_each_gets_alone(plain: Loaded, limits: dict[str, object]) -> None:
    crowd = list(_crowd(plain))
    assert len(crowd) == 24
    alone = {it.id: answers(plain.engine(), it)[it.id] for it in crowd}
    assert answers(plain.engine(**limits), *crowd) == alone


def test_a_text_alone_is_answered_in_full(plain: Loaded) -> None:
    expected = answers(plain.engine(), plain.asker.ask("it", BEFORE))["it"]
    for narrowing in EVERY:
        request = plain.asker.ask("it", BEFORE, narrowing=narrowing)
        assert request.active_narrowing is None
        assert answers(plain.engine(), request)["it"] == expected


def test_an_image_that_ends_a_prompt_keeps_its_last_row(
    plain: Loaded, kept: list[list[tuple[int, ...]]]
) -> None:
    for narrowing in EVERY[1:]:
        request = plain.asker.ask("it", BEFORE, (), narrowing=narrowing)
        last = request.num_prompt - 1
        assert len(answers(plain.engine(), request)["it"]) == 6
        assert all(last not in rows for rows in kept.pop())


def test_rows_at_random_follow_from_seed_and_image(
    plain: Loaded, kept: list[list[tuple[int, ...]]]
) -> None:
    request = plain.asker.ask("it", BEFORE, AFTER, narrowing=RANDOM)
    other = replace(request, narrowing=replace(RANDOM, seed=6))
    for each in (request, request, other):
        answers(plain.engine(), each)
    (first,), (again,), (differently,) = kept
    assert first == again != differently
    assert len(first) == 10


def test_rows_of_an_image_that_another_rule_tells_from_text(plain: Loaded) -> None:
    """ShortV's kind beside a ranking: with text between two images the host cannot tell them."""
    skipping = {"action": "skip_ffn", "layers": [5], "scope": "visual"}
    plan = resolve("it", SkipPolicy.model_validate({"rules": [skipping]}), 8).plan
    for narrowing in EVERY:
        engine = plain.engine()
        between = plain.asker.ask("it", BEFORE, (3, 4), AFTER, narrowing=narrowing, plan=plan)
        if narrowing is not None and narrowing.is_ranked:
            with pytest.raises(InvalidRequestError, match="not with text between them"):
                engine.add(between)
            assert engine.check() == []
        else:
            answers(engine, between)
        beside = plain.asker.ask("it", BEFORE, (), AFTER, narrowing=narrowing, plan=plan)
        chunked = plain.engine(max_batch_tokens=20, page_size=4)
        assert answers(chunked, beside) == answers(plain.engine(), beside)


def test_giving_up_while_rows_wait_leaves_nothing_behind(plain: Loaded) -> None:
    engine = plain.engine(max_batch_tokens=16, page_size=4)
    for name, narrowing in (("one", FASTV), ("two", PYRAMID)):
        engine.add(plain.asker.ask(name, BEFORE, AFTER, narrowing=narrowing))
    engine.step()
    engine.cancel("one")
    expected = answers(plain.engine(), plain.asker.ask("two", BEFORE, AFTER, narrowing=PYRAMID))[
        "two"
    ]
    tokens = []
    while engine.has_work:
        tokens += [output.token_id for output in engine.step().outputs]
    assert tokens == expected
    assert engine.check() == []
    assert engine.state.num_pages_used == 0


def test_rows_of_one_prompt_wait_at_a_time(plain: Loaded) -> None:
    engine = plain.engine(max_batch_tokens=16, page_size=4)
    for number in range(3):
        engine.add(plain.asker.ask(str(number), BEFORE, AFTER, narrowing=FASTV))
    while engine.has_work:
        engine.step()
        waiting = [
            sequence.drops.waiting.num_rows
            for sequence in engine._sequences.values()
            if sequence.drops is not None
        ]
        assert sum(map(bool, waiting)) <= 1


# --- what is shared


@pytest.mark.parametrize("one", EVERY)
@pytest.mark.parametrize("other", EVERY)
def test_the_text_before_an_image_is_shared_and_nothing_behind_it(
    plain: Loaded, one: Narrowing | None, other: Narrowing | None
) -> None:
    """With the full model too, and of the same question asked again."""
    before = tuple(range(30, 40))  # two pages and a half
    engine, num_cached = plain.engine(page_size=4), []
    for name, narrowing in (("one", one), ("other", other)):
        engine.add(plain.asker.ask(name, before, AFTER, narrowing=narrowing, max_tokens=2))
        while engine.has_work:
            num_cached += [it.num_cached_tokens for it in engine.step().outputs]
    # All but the page of the last row, where nothing leaves.
    assert num_cached == [0, 0, 8 if one or other else 52, 0]
    request = plain.asker.ask("other", before, AFTER, narrowing=other)
    assert answers(engine, request) == answers(plain.engine(), request)


# --- what is counted


def _executed(engine: Engine, request: Request) -> Executed:
    engine.add(request)
    total = Executed()
    while engine.has_work:
        report = engine.step().report
        if report is not None:
            total += report.executed[request.policy_name]
    return total


@pytest.mark.parametrize("max_rows", [7, 512])
@pytest.mark.parametrize("narrowing", EVERY)
def test_steps_add_up_to_the_formula(
    plain: Loaded, narrowing: Narrowing | None, max_rows: int
) -> None:
    for texts in ((BEFORE, AFTER), (BEFORE, (2, 3), AFTER), (BEFORE, ()), (BEFORE,)):
        request = plain.asker.ask("it", *texts, narrowing=narrowing, max_tokens=3)
        sizes = plain.model.config.sizes
        shape = flops.Request(request.token_classes, 3, num_images=len(texts) - 1)
        planned = flops.request_flops(sizes, request.plan, shape, narrowing=narrowing)  # type: ignore[arg-type]
        full = flops.request_flops(sizes, trim(Plan.full(8)), shape)
        executed = _executed(plain.engine(max_batch_tokens=max_rows, page_size=4), request)
        # Here an image that is shown twice is encoded once.
        spared = (len(set(request.images)) - len(request.images)) * (
            (full.vision + full.projector) // max(len(request.images), 1)
        )
        assert executed.flops == planned.total + spared
        assert executed.full_flops == full.total + spared
        assert (executed.skipped_ffn > 0) == (narrowing is not None and len(texts) > 1)
        rows = request.visual_rows
        left = narrowing.num_left(rows)[-1] if narrowing else rows.count
        assert executed.dropped == rows.count - left


class Counted(GoldenModel):
    """A model that counts what its decoder executes."""

    def __init__(self, model: Llava, rows: Tensor) -> None:
        super().__init__(model, rows)
        self.flops = 0

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run and count."""
        logits, counted = count_operations(lambda: self._model.forward(batch, cache))
        self.flops += counted.flops(self._model.config.sizes.decoder)
        return logits


@pytest.mark.parametrize("narrowing", EVERY)
@pytest.mark.parametrize("max_rows", [16, 512])
def test_what_is_counted_is_executed(
    loaded: Loaded, narrowing: Narrowing | None, max_rows: int
) -> None:
    """As torch counts products of matrices, and attention by its pairs."""
    model = Counted(loaded.model, loaded.rows)
    request = loaded.asker.ask("it", BEFORE, AFTER, narrowing=narrowing, max_tokens=3)
    engine = Engine(model, EngineLimits(max_batch_tokens=max_rows, page_size=4))  # type: ignore[arg-type]
    model.flops = 0
    executed = _executed(engine, request)
    sizes = loaded.model.config.sizes
    image = flops.vision_flops(sizes.vision, sizes.vision.num_layers_used)
    image += flops.projector_flops(sizes)
    assert model.flops == executed.flops - image
