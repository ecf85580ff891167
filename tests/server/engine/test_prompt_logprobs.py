"""Scores of prompts' tokens: by the formulas of every policy, in chunks, in crowds, and again."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from operation_counts import count_operations
from scored_prompts import IMAGE_ID, Reference, Scores, ask, check_scores
from tiny_llava import make_checkpoint
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import Executed, Failed, StepOutput
from skipserve.engine.request import Adjustments, Image, Request, SamplingParams
from skipserve.errors import InvalidRequestError
from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache
from skipserve.model.llava import Llava
from skipserve_policies import flops
from skipserve_policies.catalog import load_catalog
from skipserve_policies.cost import saving
from skipserve_policies.resolve import ResolvedPolicy, resolve_for
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.shapes import whole_request
from skipserve_policies.sizes import KNOWN_MODELS

NUM_LAYERS = 32
IMAGE_SIZE = 28
ROWS_PER_IMAGE = 16
LLAVA_7B = KNOWN_MODELS["llava-1.5-7b"]
SIZES = replace(LLAVA_7B, vision=replace(LLAVA_7B.vision, image_size=IMAGE_SIZE, patch_size=7))
TIGHT = EngineLimits(max_batch_tokens=24, max_running=8, page_size=4)
BEFORE, BETWEEN, AFTER = (1, 45, 8), (99, 23), (7, 52, 3, 120, 31)


@cache
def policies() -> dict[str, ResolvedPolicy]:
    """Return those of the catalog under which prompts may be scored."""
    found = {name: resolve_for(name, policy, SIZES) for name, policy in load_catalog().items()}
    return {
        name: policy
        for name, policy in found.items()
        if policy.narrowing is None or not policy.narrowing.is_ranked
    }


@dataclass(frozen=True)
class Loaded:
    """A model, and the same by the formulas."""

    model: Llava
    reference: Reference


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = make_checkpoint(
        tmp_path_factory.mktemp("deep"),
        num_layers=NUM_LAYERS,
        hidden=32,
        num_heads=4,
        num_kv_heads=2,
        ffn=48,
        max_positions=128,
        seed=3,
    )
    model = Llava.load(folder, torch.device("cpu"), torch.float32)
    return Loaded(model, Reference(folder, model, num_heads=4, num_kv_heads=2))


@cache
def image(number: int) -> Image:
    noise = np.random.default_rng(number).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    return Image(noise.tobytes(), bytes([number]) * 32, ROWS_PER_IMAGE)


def run(engine: Engine, *requests: Request) -> dict[str, list[StepOutput]]:
    """Run requests that come together."""
    outputs: dict[str, list[StepOutput]] = {request.id: [] for request in requests}
    for request in requests:
        engine.add(request)
    while engine.has_work:
        result = engine.step()
        assert not result.failed
        for output in result.outputs:
            outputs[output.request_id].append(output)
    assert engine.check() == []
    assert engine.state.num_pages_used == 0
    return outputs


def two_images(policy: ResolvedPolicy, name: str = "it", num_top: int | None = 3) -> Request:
    return ask(name, (BEFORE, BETWEEN, AFTER), (image(1), image(2)), policy, num_top)


# --- by the formulas


@pytest.mark.parametrize("name", policies())
def test_every_policy_follows_its_formula(loaded: Loaded, name: str) -> None:
    policy = policies()[name]
    request = two_images(policy)
    expected = loaded.reference.logprobs(request, policy)
    for max_rows in (5, 512):
        engine = Engine(loaded.model, EngineLimits(max_batch_tokens=max_rows, page_size=4))
        first, second = run(engine, request)["it"]
        check_scores(request, Scores.of(first.prompt_scores), expected)
        assert second.prompt_scores is None
        assert first.token_id == int(expected[-1].argmax())


@pytest.mark.fast
@pytest.mark.parametrize("name", ["full", "visual-freeze-from-16", "vtw-half", "random-2-half"])
def test_some_policies_follow_their_formulas(loaded: Loaded, name: str) -> None:
    policy = policies()[name]
    request = two_images(policy, num_top=0)
    outputs = run(Engine(loaded.model, EngineLimits(max_batch_tokens=20)), request)["it"]
    expected = loaded.reference.logprobs(request, policy)
    check_scores(request, Scores.of(outputs[0].prompt_scores), expected)


def test_which_tokens_are_scored() -> None:
    """All but the first and those of images; behind an image none, where rows leave."""
    plain, leaving = (two_images(policies()[name]) for name in ("full", "vtw-half"))
    texts = [place for place, it in enumerate(plain.prompt_ids) if it != IMAGE_ID]
    assert (plain.scored_rows + 1).tolist() == texts[1:]
    behind = {len(BEFORE) + 16, len(BEFORE) + 16 + len(BETWEEN) + 16}
    assert (leaving.scored_rows + 1).tolist() == [it for it in texts[1:] if it not in behind]
    ends_with_image = ask("it", (BEFORE, ()), (image(1),), policies()["full"])
    assert (ends_with_image.scored_rows + 1).tolist() == [1, 2]
    assert not len(two_images(policies()["full"], num_top=None).scored_rows)


@pytest.mark.fast
@pytest.mark.parametrize("texts", [(BEFORE, ()), ((9,),), ((1, 2),)])
def test_prompts_at_the_edge(loaded: Loaded, texts: tuple[tuple[int, ...], ...]) -> None:
    """One that ends with an image, one of a single token, one of two."""
    policy = policies()["full"]
    request = ask("it", texts, [image(1)][: len(texts) - 1], policy)
    outputs = run(Engine(loaded.model, EngineLimits(page_size=4)), request)["it"]
    scores = Scores.of(outputs[0].prompt_scores)
    assert len(scores.logprobs) == request.num_scored
    if request.num_scored:
        check_scores(request, scores, loaded.reference.logprobs(request, policy))


@pytest.mark.fast
def test_the_models_own_numbers_are_told_whatever_changes_logits(loaded: Loaded) -> None:
    changes = Adjustments(1.5, 0.2, 1.1, ((20, 100.0),), ((30,),), 3)
    plain = two_images(policies()["full"])
    sampling = SamplingParams(3, temperature=1.7, top_k=2, seed=4, adjustments=changes)
    changed = replace(plain, id="changed", sampling=replace(sampling, ends_at_eos=False))
    (one, *_), (other, *_) = run(Engine(loaded.model), plain, changed).values()
    for ours, theirs in zip(_arrays(one), _arrays(other), strict=True):
        assert np.allclose(ours, theirs, atol=1e-4)


def _arrays(output: StepOutput) -> tuple[np.ndarray, ...]:
    scores = Scores.of(output.prompt_scores)
    return scores.logprobs, scores.ranks, scores.top_ids, scores.top


# --- beside others


def crowd(seed: int, count: int) -> Iterator[Request]:
    """Draw requests of any policies, most of which score their prompts."""
    source = random.Random(seed)
    for number in range(count):
        policy = policies()[source.choice(list(policies()))]
        num_images = source.choice([0, 1, 1, 2])
        texts = [
            [10 + source.randrange(200) for _ in range(source.randint(1, 9))]
            for _ in range(num_images + 1)
        ]
        shown = [image(source.randrange(3)) for _ in range(num_images)]
        sampling = SamplingParams(source.choice([1, 12, 30]), temperature=0.0, ends_at_eos=False)
        num_top = source.choice([None, 0, 2, 5])
        yield ask(str(number), texts, shown, policy, num_top, sampling)


def alone(model: Llava, request: Request) -> list[StepOutput]:
    engine = Engine(model, EngineLimits(max_running=1, max_batch_tokens=512))
    return run(engine, request)[request.id]


def check_like_alone(
    model: Llava, requests: Iterable[Request], mixed: dict[str, list[StepOutput]]
) -> None:
    num_scored = num_parted = 0
    for request in requests:
        expected, found = alone(model, request), mixed[request.id]
        num_parted += [it.token_id for it in expected] != [it.token_id for it in found]
        assert [it.prompt_scores is None for it in found[1:]] == [True] * (len(found) - 1)
        if request.num_prompt_logprobs is None:
            assert found[0].prompt_scores is None
            continue
        assert found[0].num_cached_tokens == 0 or not request.num_scored
        ours, theirs = Scores.of(found[0].prompt_scores), Scores.of(expected[0].prompt_scores)
        assert ours.top.shape == theirs.top.shape
        assert np.allclose(ours.logprobs, theirs.logprobs, atol=1e-3)
        assert np.allclose(ours.top, theirs.top, atol=1e-3)
        num_scored += 1
    assert num_scored > 5
    assert num_parted <= 1, "near ties are rare"


def tight(model: Llava, num_pages: int = 30, *, looks_ahead: bool) -> EngineLimits:
    num_bytes = num_pages * model.cache_bytes_per_token() * TIGHT.page_size
    return replace(TIGHT, kv_cache_bytes=num_bytes, looks_ahead=looks_ahead)


@pytest.mark.fast
@pytest.mark.parametrize("looks_ahead", [False, True])
def test_in_a_crowd_each_gets_what_it_gets_alone(loaded: Loaded, looks_ahead: bool) -> None:
    requests = tuple(crowd(seed=1, count=14))
    engine = Engine(loaded.model, tight(loaded.model, looks_ahead=looks_ahead))
    check_like_alone(loaded.model, requests, run(engine, *requests))
    assert engine.state.num_preemptions > 0


class Scarce(Llava):
    """A model whose device has no memory for some steps."""

    def __init__(self, model: Llava, *failing: int) -> None:
        object.__setattr__(self, "__dict__", {**vars(model), "num_forwards": 0})
        vars(self)["failing"] = failing

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        vars(self)["num_forwards"] += 1
        if vars(self)["num_forwards"] in vars(self)["failing"]:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return super().forward(batch, cache)


@pytest.mark.fast
@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_step_that_did_not_run_is_scored_later(
    loaded: Loaded, failing: int, looks_ahead: bool
) -> None:
    """One request fails; the other goes back, and finds what it had published and scored."""
    limits = EngineLimits(max_batch_tokens=12, page_size=4, looks_ahead=looks_ahead)
    engine = Engine(Scarce(loaded.model, failing), limits)
    policy = policies()["full"]
    requests = [two_images(policy, name) for name in ("first", "last")]
    for request in requests:
        engine.add(replace(request, cache_salt=request.id))
    outputs: list[StepOutput] = []
    failed: list[Failed] = []
    while engine.has_work:
        result = engine.step()
        outputs += result.outputs
        failed += result.failed
    assert len(failed) == 1
    left = requests[failed[0].request_id == "first"]
    first, *_ = (it for it in outputs if it.request_id == left.id)
    expected = loaded.reference.logprobs(left, policy)
    check_scores(left, Scores.of(first.prompt_scores), expected)
    assert engine.check() == []


@pytest.mark.fast
def test_giving_up_leaves_nothing_behind(loaded: Loaded) -> None:
    engine = Engine(loaded.model, EngineLimits(max_batch_tokens=8, looks_ahead=True))
    for name in ("a", "b"):
        engine.add(two_images(policies()["full"], name))
    engine.step()
    engine.step()
    engine.cancel("a")
    outputs = []
    while engine.has_work:
        outputs += engine.step().outputs
    assert {it.request_id for it in outputs} == {"b"}
    assert engine.check() == []
    assert engine.state.num_pages_used == 0


@pytest.mark.fast
def test_a_prompt_whose_logits_are_no_numbers_fails_alone(loaded: Loaded) -> None:
    """Though its last row's are: what is scored counts too."""

    class Spoilt(Llava):
        def __init__(self) -> None:
            object.__setattr__(self, "__dict__", dict(vars(loaded.model)))

        @torch.inference_mode()
        def forward(self, batch: Batch, cache: KVCache) -> Tensor:
            logits = super().forward(batch, cache)
            if batch.scoring is not None:
                for own, *_ in batch.scoring._pieces:
                    own[batch.scoring.token_ids == 99] = torch.nan
            return logits

    engine = Engine(Spoilt())
    good = ask("good", (BEFORE, AFTER), (image(1),), policies()["full"])
    for request in (two_images(policies()["full"], "bad"), good):
        engine.add(request)
    outputs: list[StepOutput] = []
    failed: list[Failed] = []
    while engine.has_work:
        result = engine.step()
        outputs += result.outputs
        failed += result.failed
    assert [it.request_id for it in failed] == ["bad"]
    assert failed[0].message == "the model's output is not a number"
    assert {it.request_id for it in outputs} == {"good"}
    assert engine.check() == []


# --- what is shared


@pytest.mark.fast
def test_prefixes_are_not_looked_up_but_left_for_others(loaded: Loaded) -> None:
    """Of a policy under which K/V are the same; where they are not, nobody finds them."""
    answer = {"action": "skip_block", "layers": {"from": 8, "to": 31}, "scope": "answer"}
    skipping = SkipPolicy.model_validate({"rules": [answer]})
    for policy, is_shared in (
        (policies()["full"], True),
        (resolve_for("answer", skipping, SIZES), False),
    ):
        engine = Engine(loaded.model, EngineLimits(page_size=4))
        plain, scoring = two_images(policy, "plain", None), two_images(policy, "scoring")
        num_cached = []
        for request in (scoring, scoring, plain, plain, scoring):
            outputs = run(engine, request)[request.id]
            num_cached.append(outputs[0].num_cached_tokens)
            wanted = alone(loaded.model, request)
            assert [it.token_id for it in outputs] == [it.token_id for it in wanted]
        whole = (scoring.num_prompt - 1) // 4 * 4
        assert num_cached == [0, 0, whole if is_shared else 0, whole, 0]


@pytest.mark.fast
def test_what_is_scored_is_found_after_a_preemption(loaded: Loaded) -> None:
    """A sequence that goes back once its prompt is scored has its pages again."""
    limits = EngineLimits(page_size=4)
    engine = Engine(loaded.model, limits)
    sampling = SamplingParams(6, temperature=0.0, ends_at_eos=False)
    request = replace(two_images(policies()["full"]), sampling=sampling)
    engine.add(request)
    outputs = list(engine.step().outputs)
    (sequence,) = engine._scheduler._running
    engine._scheduler._preempt_last()
    rows = []
    while engine.has_work:
        result = engine.step()
        outputs += result.outputs
        assert result.report is not None
        rows.append(result.report.num_rows)
    assert rows[0] < 8
    assert sequence.scores == []
    assert [it.token_id for it in outputs] == [it.token_id for it in alone(loaded.model, request)]
    assert [it.prompt_scores is None for it in outputs] == [False] + [True] * 5


# --- what is counted


class Counted(Llava):
    """A model that counts what its decoder executes."""

    def __init__(self, model: Llava) -> None:
        object.__setattr__(self, "__dict__", {**vars(model), "flops": 0})

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        logits, counted = count_operations(lambda: super(Counted, self).forward(batch, cache))
        vars(self)["flops"] += counted.flops(self.config.sizes.decoder)
        return logits


@pytest.mark.parametrize("name", policies())
@pytest.mark.parametrize("max_rows", [7, 512])
def test_what_is_planned_is_executed(loaded: Loaded, name: str, max_rows: int) -> None:
    """As the formula counts it, and as torch counts products of matrices."""
    policy = policies()[name]
    request = two_images(policy)
    model = Counted(loaded.model)
    engine = Engine(model, EngineLimits(max_batch_tokens=max_rows, page_size=4))
    vars(model)["flops"] = 0
    engine.add(request)
    total = Executed()
    while engine.has_work:
        report = engine.step().report
        assert report is not None
        total += report.executed[request.policy_name]
    sizes = model.config.sizes
    reduced = flops.Request(request.token_classes, 2, 0, 2, request.num_scored)
    shape = whole_request(sizes, reduced, policy.reduction)
    plan = policy.plan_for(scores=True)
    planned = saving(sizes, plan, shape, policy.reduction, policy.narrowing)
    assert total.flops == planned.planned_flops
    assert total.full_flops == planned.full_flops
    cost = flops.request_flops(sizes, plan, reduced, policy.reduction, policy.narrowing)
    assert vars(model)["flops"] == total.flops - cost.vision - cost.projector


@pytest.mark.fast
def test_full_saves_nothing_and_scoring_costs(loaded: Loaded) -> None:
    counted = []
    for num_top in (3, None):
        engine = Engine(loaded.model)
        engine.add(two_images(policies()["full"], num_top=num_top))
        report = engine.step().report
        assert report is not None
        executed = report.executed["full"]
        assert executed.flops == executed.full_flops
        assert (executed.skipped_attention, executed.skipped_ffn) == (0, 0)
        counted.append(executed.flops)
    assert counted[0] > counted[1]


# --- what is refused


@pytest.mark.fast
@pytest.mark.parametrize("num_top", [-1, 21])
def test_numbers_out_of_range(loaded: Loaded, num_top: int) -> None:
    request = two_images(policies()["full"], num_top=num_top)
    with pytest.raises(InvalidRequestError, match=f"prompt_logprobs is {num_top}, it must be in"):
        Engine(loaded.model).add(request)


@pytest.mark.fast
@pytest.mark.parametrize("method", ["fastv", "dart", "pyramiddrop", "sparsevlm"])
def test_policies_that_rank_by_the_last_row(loaded: Loaded, method: str) -> None:
    """Are refused where rows leave; a text alone is the full model's."""
    rule: dict[str, Any] = {"action": "drop_visual", "method": method, "before": 2, "keep": "50%"}
    if method in ("pyramiddrop", "sparsevlm"):
        rule |= {"before": [2], "keep": ["50%"]}
    policy = resolve_for(method, SkipPolicy.model_validate({"rules": [rule]}), SIZES)
    engine = Engine(loaded.model)
    with pytest.raises(InvalidRequestError, match=f"drops visual rows by {method}") as caught:
        engine.add(two_images(policy))
    assert caught.value.param == "prompt_logprobs"
    assert not engine.has_work
    text = ask("text", ((*BEFORE, *AFTER),), (), policy)
    scores = Scores.of(run(engine, text)["text"][0].prompt_scores)
    check_scores(text, scores, loaded.reference.logprobs(text, policies()["full"]))
