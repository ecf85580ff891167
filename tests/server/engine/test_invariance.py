"""Whatever runs beside it, a request gets what it gets alone, by the exactness rule.

In float32 the logits are within 1e-4 of their scale, and tokens are equal unless the two best
logits of the solo run are closer than that, where the comparison stops.
"""

import random
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from tiny_llava import make_checkpoint, make_tokenizer
from torch import Tensor

from skipserve.engine.engine import Engine, StepResult
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import StepOutput
from skipserve.engine.request import Adjustments, Grammar, Image, Request, SamplingParams
from skipserve.grammar.matcher import Grammars
from skipserve.grammar.structure import Json, Regex
from skipserve.grammar.vocabulary import Vocabulary
from skipserve.grammar.writing import written
from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache
from skipserve.model.llava import Llava
from skipserve.prompt.tokenizer import Tokenizer
from skipserve_policies.catalog import load_catalog
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import ResolvedPolicy, resolve_for
from skipserve_policies.sizes import KNOWN_MODELS

NUM_LAYERS = 32
IMAGE_ID = 4
EOS_ID = 2
IMAGE_SIZE = 28
ROWS_PER_IMAGE = 16
VOCAB = 320
NUM_TOP = 20
LLAVA_7B = KNOWN_MODELS["llava-1.5-7b"]
SIZES = replace(LLAVA_7B, vision=replace(LLAVA_7B.vision, image_size=IMAGE_SIZE, patch_size=7))

# A pool that holds a few of them, small steps and small pages: much chunking and preemption.
TIGHT = EngineLimits(max_batch_tokens=48, max_running=12, page_size=4)
NUM_PAGES = 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llava:
    folder = make_checkpoint(
        tmp_path_factory.mktemp("deep"),
        num_layers=NUM_LAYERS,
        hidden=32,
        ffn=88,
        max_positions=128,
        seed=3,
    )
    return Llava.load(folder, torch.device("cpu"), torch.float32)


@cache
def grammars() -> Grammars:
    tokenizer = Tokenizer(make_tokenizer().to_str())
    return Grammars(lambda: Vocabulary.of(tokenizer, [EOS_ID], VOCAB))


@cache
def _policies() -> dict[str, ResolvedPolicy]:
    catalog = load_catalog()
    return {name: resolve_for(name, policy, SIZES) for name, policy in catalog.items()}


@dataclass(frozen=True)
class Traffic:
    """Requests with the steps at which they come, and the steps after which some are given up."""

    requests: tuple[Request, ...]
    arrivals: dict[str, int]
    cancels: dict[str, int]

    @classmethod
    def draw(cls, num_requests: int, seed: int) -> "Traffic":
        """Draw requests of mixed policies, sizes, images, sampling and arrival times."""
        source = random.Random(seed)
        requests = tuple(_request(source, str(i)) for i in range(num_requests))
        now = 0
        arrivals, cancels = {}, {}
        for request in requests:
            now += source.choice([0, 0, 0, 1, 3])
            arrivals[request.id] = now
            if source.random() < 0.1:
                cancels[request.id] = now + source.randrange(12)
        return cls(requests, arrivals, cancels)


def _request(source: random.Random, name: str) -> Request:
    """Draw a request: few pictures and few openings, so that many can be shared."""
    policy_name = source.choice(list(_policies()))
    opening = [5, 6, 7, 8][: source.choice([0, 4])]
    policy = _policies()[policy_name]
    images = tuple(
        _image(source.randrange(4)).reduced(policy.reduction)
        for _ in range(source.choice([0, 1, 1, 1, 2]))
    )
    question = [10 + source.randrange(200) for _ in range(source.randint(1, 12))]
    segments = [(TokenClass.TEXT, len(opening))]
    ids = list(opening)
    for image in images:
        segments += [(TokenClass.VISUAL, image.num_rows)]
        ids += [IMAGE_ID] * image.num_rows
    segments += [(TokenClass.TEXT, len(question))]
    sampling = SamplingParams(
        max_tokens=source.choice([1, 3, 20, 30]),
        temperature=source.choice([0.0, 0.0, 0.0, 0.8]),
        top_p=source.choice([1.0, 0.9]),
        seed=source.randrange(2**63),
        num_top_logprobs=NUM_TOP,
        ends_at_eos=False,
    )
    return Request(
        id=name,
        prompt_ids=(*ids, *question),
        token_classes=prompt_classes(segments),
        images=images,
        sampling=sampling,
        policy_name=policy_name,
        plan=policy.plan,
        narrowing=policy.narrowing,
    )


@cache
def _image(number: int) -> Image:
    noise = np.random.default_rng(number).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    return Image(noise.tobytes(), bytes([number]) * 32, ROWS_PER_IMAGE)


class Measured(Llava):
    """A model that remembers the scale of its logits."""

    def __init__(self, model: Llava) -> None:
        object.__setattr__(self, "__dict__", {**vars(model), "scales": [0.0]})

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        logits = super().forward(batch, cache)
        if len(logits):
            vars(self)["scales"].append(float(logits.abs().max()))
        return logits


class Scarce(Llava):
    """A model whose device has no memory for every fifth step."""

    def __init__(self, model: Llava) -> None:
        object.__setattr__(self, "__dict__", {**vars(model), "num_forwards": 0})

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        vars(self)["num_forwards"] += 1
        if vars(self)["num_forwards"] % 5 == 0:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return super().forward(batch, cache)


def _run(engine: Engine, traffic: Traffic) -> dict[str, list[StepOutput]]:
    """Run requests as they come and go."""
    outputs: dict[str, list[StepOutput]] = {request.id: [] for request in traffic.requests}
    waiting = list(traffic.requests)
    now = 0
    while waiting or engine.has_work:
        while waiting and traffic.arrivals[waiting[0].id] <= now:
            engine.add(waiting.pop(0))
        for name, moment in traffic.cancels.items():
            if moment == now:
                engine.cancel(name)
        for output in engine.step().outputs if engine.has_work else []:
            outputs[output.request_id].append(output)
        now += 1
    return outputs


# What requests get alone, by request: several tests have the same ones.
_known: dict[Request, tuple[list[StepOutput], float]] = {}


def _alone(model: Llava, request: Request) -> tuple[list[StepOutput], float]:
    """Return what a request gets alone, with the scale of its logits."""
    if request not in _known:
        _known[request] = _run_alone(model, request)
    return _known[request]


def _run_alone(model: Llava, request: Request) -> tuple[list[StepOutput], float]:
    measured = Measured(model)
    limits = EngineLimits(max_running=1, max_batch_tokens=512)
    engine = Engine(measured, limits, grammars())
    outputs = _run(engine, Traffic((request,), {request.id: 0}, {}))[request.id]
    return outputs, max(vars(measured)["scales"])


def _compare(alone: list[StepOutput], mixed: list[StepOutput], scale: float) -> bool:
    """Compare two runs of a request by the rule; return whether all tokens were equal."""
    # A log-probability moves by at most twice what the logits do.
    allowed = 2e-4 * scale
    for one, other in zip(alone, mixed, strict=False):
        expected = {each.token_id: each.logprob for each in one.top_logprobs}
        found = {each.token_id: each.logprob for each in other.top_logprobs}
        shared = expected.keys() & found.keys()
        assert len(shared) >= NUM_TOP - 2
        assert max(abs(expected[i] - found[i]) for i in shared) <= allowed
        if one.token_id != other.token_id:
            return False
    return True


def _is_near_tie(alone: list[StepOutput], mixed: list[StepOutput], scale: float) -> bool:
    """Whether the solo run's two best logits were close where the runs parted."""
    pairs = zip(alone, mixed, strict=False)
    parting = next(one for one, other in pairs if one.token_id != other.token_id)
    best, second = parting.top_logprobs[:2]
    return best.logprob - second.logprob <= 2e-4 * scale


def _check(model: Llava, num_requests: int, limits: EngineLimits, seed: int) -> Engine:
    traffic = Traffic.draw(num_requests, seed)
    engine = Engine(model, limits)
    mixed = _run(engine, traffic)
    num_parted = 0
    for request in traffic.requests:
        alone, scale = _alone(model, request)
        if request.id not in traffic.cancels:
            assert len(mixed[request.id]) == len(alone)
        if not _compare(alone, mixed[request.id], scale):
            num_parted += 1
            if request.sampling.temperature == 0:
                assert _is_near_tie(alone, mixed[request.id], scale)
    assert num_parted <= num_requests / 50, "near ties are rare"
    assert engine.check() == []
    assert engine.state.num_pages_used == 0
    assert engine.state.num_faults == 0
    return engine


def _tight(model: Llava, *, looks_ahead: bool = False) -> EngineLimits:
    page_bytes = model.cache_bytes_per_token() * TIGHT.page_size
    return replace(TIGHT, kv_cache_bytes=NUM_PAGES * page_bytes, looks_ahead=looks_ahead)


@pytest.mark.fast
@pytest.mark.parametrize("looks_ahead", [False, True])
def test_a_few_requests_in_a_crowd(model: Llava, looks_ahead: bool) -> None:
    engine = _check(model, 16, _tight(model, looks_ahead=looks_ahead), seed=5)
    assert engine.state.num_preemptions > 0


ANY_JSON = Json('{"type": "object"}')
# Each kind of change to logits; None for a plain request beside them.
CHANGES = (
    None,
    Adjustments(presence_penalty=1.5),
    Adjustments(frequency_penalty=0.7),
    Adjustments(repetition_penalty=1.3),
    Adjustments(logit_bias=((20, 2.0), (7, -100.0))),
    Adjustments(bad_words=((20,), (30, 31)), min_tokens=4),
    Adjustments(-0.5, 0.2, 0.9, ((11, 0.5),), ((12, 13),), 2),
    Adjustments(grammar=Grammar(written(Regex("[a-z]{3,9}( [a-z]+)*")), "g")),
    Adjustments(1.5, 0.2, 1.1, ((20, 1.0),), ((30,),), 3, (), Grammar(written(ANY_JSON), "g")),
)


def _changed(sampling: SamplingParams, changes: Adjustments | None) -> SamplingParams:
    """Return sampling with changes; what has a grammar ends with it."""
    ends = changes is not None and changes.grammar is not None
    return replace(sampling, adjustments=changes, ends_at_eos=ends or sampling.ends_at_eos)


def test_changed_logits_in_a_crowd(model: Llava) -> None:
    """Under mixed policies and preemption, each kind of change is what it is alone."""
    drawn = Traffic.draw(18, seed=5)
    requests = tuple(
        replace(it, sampling=_changed(it.sampling, CHANGES[index % len(CHANGES)]))
        for index, it in enumerate(drawn.requests)
    )
    engine = Engine(model, _tight(model, looks_ahead=True), grammars())
    mixed = _run(engine, replace(drawn, requests=requests))
    num_parted = 0
    for request in requests:
        alone, scale = _alone(model, request)
        num_parted += not _compare(alone, mixed[request.id], scale)
    assert num_parted <= 1, "near ties are rare"
    assert engine.state.num_preemptions > 0
    assert engine.check() == []


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_whoever_survives_a_lack_of_memory(model: Llava, looks_ahead: bool) -> None:
    """One request fails each time; the others are computed again and get what they get alone."""
    traffic = replace(Traffic.draw(16, seed=5), cancels={})
    engine = Engine(Scarce(model), _tight(model, looks_ahead=looks_ahead))
    failed: list[str] = []
    step = engine.step

    def noting() -> StepResult:
        result = step()
        failed.extend(str(each.request_id) for each in result.failed)
        return result

    engine.step = noting  # type: ignore[method-assign]
    mixed = _run(engine, traffic)
    assert 2 < len(failed) < 12
    num_parted = 0
    for request in traffic.requests:
        alone, scale = _alone(model, request)
        outputs = mixed[request.id]
        assert request.id in failed or len(outputs) == len(alone)
        num_parted += not _compare(alone, outputs, scale)
    assert num_parted <= 1, "near ties are rare"
    assert engine.check() == []
    assert engine.state.num_pages_used == 0


@pytest.mark.slow
def test_two_hundred_requests_in_a_crowd(model: Llava) -> None:
    engine = _check(model, 200, _tight(model), seed=2)
    state = engine.state
    assert state.num_preemptions > 10
    assert state.num_page_evictions > 10
    assert state.num_encoder_hits > 10


@pytest.mark.slow
def test_two_hundred_requests_with_room_for_all(model: Llava) -> None:
    engine = _check(model, 200, EngineLimits(max_running=64, looks_ahead=True), seed=2)
    assert engine.state.num_preemptions == 0


def test_a_shared_prompt_is_reused_across_policies(model: Llava) -> None:
    """Rows that are found give the same answer as rows that are computed."""
    source = random.Random(7)
    shared = replace(_request(source, "0"), prompt_ids=(), token_classes=(), images=())
    engine = Engine(model, EngineLimits(page_size=4))
    num_cached = []
    for name, policy in _policies().items():
        image = _image(1).reduced(policy.reduction)
        ids = (5, 6, 7, *(IMAGE_ID,) * image.num_rows, 30, 31, 32, 33, 34)
        classes = prompt_classes(
            [(TokenClass.TEXT, 3), (TokenClass.VISUAL, image.num_rows), (TokenClass.TEXT, 5)]
        )
        request = replace(
            shared,
            id=name,
            prompt_ids=ids,
            token_classes=classes,
            images=(image,),
            plan=policy.plan,
            narrowing=policy.narrowing,
            policy_name=name,
            sampling=replace(shared.sampling, temperature=0.0, max_tokens=4),
        )
        outputs = _run(engine, Traffic((request,), {name: 0}, {}))[name]
        alone, scale = _alone(model, request)
        assert _compare(alone, outputs, scale) or _is_near_tie(alone, outputs, scale)
        num_cached.append(outputs[0].num_cached_tokens)
    assert {0, 20} <= set(num_cached)
