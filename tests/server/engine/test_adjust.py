"""Changes to logits: each against its meaning spelt out, alone and in any crowd."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from fake_decoder import EOS_ID, NUM_LAYERS, VOCAB, FakeDecoder, make_request
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.adjust import RowAdjuster, adjust
from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import FinishReason, StepOutput
from skipserve.engine.request import Adjustments, Request, SamplingParams
from skipserve.engine.sampler import Sampler
from skipserve.errors import InvalidRequestError
from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache
from skipserve_policies.catalog import load_catalog
from skipserve_policies.plan import Plan, trim
from skipserve_policies.resolve import PolicyError, resolve

pytestmark = pytest.mark.fast

NUM_TOKENS = 14


class Lively(FakeDecoder):
    """A decoder whose answers go on from their last token, and from all before a little."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.follows = torch.randn(VOCAB, VOCAB, generator=generator)

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        last = batch.token_ids[batch.logit_rows]
        return super().forward(batch, cache) / 50 + self.follows[last]


class Recorder(Lively):
    """A decoder that remembers its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: list[NDArray[np.float32]] = []

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        logits = super().forward(batch, cache)
        self.logits += list(logits.numpy().copy())
        return logits


def run(engine: Engine, *requests: Request) -> dict[str, list[StepOutput]]:
    outputs: dict[str, list[StepOutput]] = {request.id: [] for request in requests}
    for request in requests:
        engine.add(request)
    while engine.has_work:
        for output in engine.step().outputs:
            outputs[output.request_id].append(output)
    assert engine.check() == []
    return outputs


def tokens(outputs: Sequence[StepOutput]) -> list[int]:
    return [output.token_id for output in outputs if output.token_id is not None]


@cache
def plain_answer(plan: Plan | None = None) -> list[int]:
    [outputs] = run(Engine(Lively()), asked("plain", None, plan)).values()
    return tokens(outputs)


def asked(
    name: str, adjustments: Adjustments | None, plan: Plan | None = None, **sampling: Any
) -> Request:
    return make_request(
        name, num_text=9, max_tokens=NUM_TOKENS, plan=plan, adjustments=adjustments, **sampling
    )


def kinds(plan: Plan | None = None) -> dict[str, Adjustments]:
    """Return every kind of change, each such that it changes an answer."""
    first, second, third, *_ = plain_answer(plan)
    return {
        "presence": Adjustments(presence_penalty=2.0),
        "frequency": Adjustments(frequency_penalty=1.5),
        "negative": Adjustments(presence_penalty=-2.0, frequency_penalty=-1.0),
        "repetition": Adjustments(repetition_penalty=1.8),
        "encouraged": Adjustments(repetition_penalty=0.4),
        "bias": Adjustments(logit_bias=((first, -100.0), (7, 3.5), (10, -0.5))),
        "word": Adjustments(bad_words=((second,),)),
        "words": Adjustments(bad_words=((first, second), (first, second, third), (9, 9))),
        "all": Adjustments(0.5, 0.25, 1.2, ((first, 1.0), (60, -3.0)), ((second,),), 3),
    }


def expected(
    logits: NDArray[np.float32],
    wanted: Adjustments,
    prompt: Sequence[int],
    answer: Sequence[int],
    ends: Sequence[int] = (),
) -> NDArray[np.float64]:
    """Return logits [V] as their definitions change them, token by token."""
    changed = logits.astype(np.float64)
    for token_id, bias in wanted.logit_bias:
        changed[token_id] += bias
    for token_id in {*prompt, *answer}:
        if token_id < len(changed):
            up, down = changed[token_id] / wanted.repetition_penalty, changed[token_id]
            changed[token_id] = up if down > 0 else down * wanted.repetition_penalty
    for token_id in set(answer):
        changed[token_id] -= wanted.frequency_penalty * answer.count(token_id)
        changed[token_id] -= wanted.presence_penalty
    for word in wanted.bad_words:
        if tuple(answer[len(answer) - len(word) + 1 :]) == word[:-1]:
            changed[word[-1]] = -math.inf
    if len(answer) < wanted.min_tokens:
        changed[list(ends)] = -math.inf
    return changed


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("looks_ahead", [False, True])
def test_an_answer_is_what_the_definitions_say(kind: str, looks_ahead: bool) -> None:
    wanted, model = kinds()[kind], Recorder()
    request = asked(kind, wanted)
    engine = Engine(model, EngineLimits(looks_ahead=looks_ahead))
    [outputs] = run(engine, request).values()
    answer = tokens(outputs)
    assert answer != plain_answer()
    for place, token_id in enumerate(answer):
        changed = expected(
            model.logits[place], wanted, request.prompt_ids, answer[:place], (EOS_ID,)
        )
        assert token_id == changed.argmax()


@pytest.mark.parametrize("kind", kinds())
def test_numbers_are_those_of_the_definitions(kind: str) -> None:
    wanted = kinds()[kind]
    generator = np.random.default_rng(1)
    logits = generator.normal(scale=3, size=(3, 64)).astype(np.float32)
    history = generator.integers(0, 64, 40)
    history[12:14] = plain_answer()[:2]
    row = RowAdjuster(wanted, history, 10, (EOS_ID,))
    for position in (10, 11, 12, 13, 14, 39):
        found = adjust(torch.from_numpy(logits), [1], [position], [row]).numpy()
        changed = expected(
            logits[1], wanted, history[:10].tolist(), history[10:position].tolist(), (EOS_ID,)
        )
        np.testing.assert_allclose(found[1], changed, rtol=1e-6, atol=1e-6)
        assert (found[[0, 2]] == logits[[0, 2]]).all()


def test_tokens_that_the_head_does_not_have_change_nothing() -> None:
    """An image token of a prompt may lie beyond the vocabulary."""
    history = np.array([70, 3, 64, 5])
    row = RowAdjuster(Adjustments(repetition_penalty=2.0, min_tokens=9), history, 3, (2, 99))
    found = adjust(torch.ones(2, 64), [0], [4], [row])
    assert found[1].tolist() == [1.0] * 64
    assert (found[0] != 1).nonzero()[:, 0].tolist() == [2, 3, 5]


def test_a_draw_is_of_the_changed_logits() -> None:
    """With a seed: the sampler, given the changed logits of each step, draws the same tokens."""
    for kind, wanted in kinds().items():
        model = Recorder()
        sampling: dict[str, Any] = {"temperature": 0.9, "top_k": 20, "seed": 5}
        request = asked(kind, wanted, **sampling)
        [outputs] = run(Engine(model), request).values()
        answer = tokens(outputs)
        sampler = Sampler(1)
        sampler.place(0, SamplingParams(1, **sampling))
        for place, token_id in enumerate(answer):
            changed = expected(
                model.logits[place], wanted, request.prompt_ids, answer[:place], (EOS_ID,)
            )
            position = np.array([request.num_prompt + place])
            logits = torch.from_numpy(changed[None].astype(np.float32))
            assert sampler.sample(logits, np.zeros(1, np.int64), position).read().token_ids == [
                token_id
            ]


def test_log_probabilities_stay_the_models_own() -> None:
    model = Recorder()
    request = asked("r", Adjustments(logit_bias=((5, 100.0),)), num_top_logprobs=3)
    [outputs] = run(Engine(model), request).values()
    assert set(tokens(outputs)) == {5}
    for output, logits in zip(outputs, model.logits, strict=True):
        own = torch.from_numpy(logits).log_softmax(-1)
        assert output.logprob == pytest.approx(float(own[5]))
        assert output.top_logprobs[0].logprob == pytest.approx(float(own.max()))


@cache
def plans() -> tuple[Plan, ...]:
    """Return policies of the catalog that fit so few layers."""
    found = []
    for name, policy in load_catalog().items():
        try:
            found.append(trim(resolve(name, policy, NUM_LAYERS).plan))
        except PolicyError:
            continue
    return tuple(found)


@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.parametrize("num_pages", [16, 400])
def test_whatever_runs_beside_it(looks_ahead: bool, num_pages: int) -> None:
    """Kinds, policies and plain requests in one crowd, with and without enough pages."""
    requests = [asked("plain", None), asked("drawn", None, temperature=1.0, seed=3)]
    for index, (kind, wanted) in enumerate(kinds().items()):
        for plan in (None, plans()[index % len(plans())]):
            sampling = {"temperature": 0.8, "seed": index} if index % 3 == 2 else {}
            requests.append(asked(f"{kind} {plan is None}", wanted, plan, **sampling))
    limits = EngineLimits(
        page_size=4,
        max_batch_tokens=24,
        max_running=12,
        looks_ahead=looks_ahead,
        kv_cache_bytes=num_pages * Lively().cache_bytes_per_token() * 4,
    )
    engine = Engine(Lively(), limits)
    together = run(engine, *requests)
    assert (engine.state.num_preemptions > 0) is (num_pages == 16)
    for request in requests:
        [alone] = run(Engine(Lively()), request).values()
        assert tokens(together[request.id]) == tokens(alone), request.id


def test_those_that_need_not_wait_look_ahead() -> None:
    """A row without a need for its last token is launched before that is read."""
    engine = Engine(Lively(), EngineLimits(looks_ahead=True))
    wanted = {
        "bias": Adjustments(logit_bias=((5, 1.0),), min_tokens=3, bad_words=((7,),)),
        "penalty": Adjustments(presence_penalty=1.0),
    }
    for name, adjustments in wanted.items():
        engine.add(asked(name, adjustments))
    steps = [[output.request_id for output in engine.step().outputs] for _ in range(8)]
    assert [step.count("bias") for step in steps] == [0, *[1] * 7]
    assert [step.count("penalty") for step in steps] == [0, 1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("min_tokens", [0, 1, 4])
def test_an_answer_is_not_over_before_its_least_length(min_tokens: int) -> None:
    """Of tokens that all want to end it."""
    ends = (EOS_ID, 11, 12)
    wanted = Adjustments(
        logit_bias=tuple((it, 100.0) for it in ends), min_tokens=min_tokens, end_token_ids=(12,)
    )
    request = asked("r", wanted, ends_at_eos=True, stop_token_ids=(11, 12))
    [outputs] = run(Engine(Lively()), request).values()
    assert len(outputs) == min_tokens + 1
    assert not set(ends) & set(tokens(outputs)[:-1])
    assert outputs[-1].finish_reason is FinishReason.STOP


def test_a_seat_keeps_nothing_of_the_one_before() -> None:
    engine = Engine(Lively(), EngineLimits(max_running=1))
    outputs = run(engine, asked("a", Adjustments(logit_bias=((5, 100.0),))), asked("b", None))
    assert set(tokens(outputs["a"])) == {5}
    assert tokens(outputs["b"]) == plain_answer()


@pytest.mark.parametrize(
    ("adjustments", "message"),
    [
        (Adjustments(presence_penalty=2.5), "presence_penalty is 2.5"),
        (Adjustments(frequency_penalty=math.nan), "frequency_penalty is nan"),
        (Adjustments(repetition_penalty=0.0), "repetition_penalty is 0"),
        (Adjustments(repetition_penalty=5e-324), "repetition_penalty is 5e-324"),
        (Adjustments(repetition_penalty=math.inf), "repetition_penalty is inf"),
        (Adjustments(logit_bias=((5, 101.0),)), "logit_bias has 101"),
        (Adjustments(logit_bias=((5, math.nan),)), "logit_bias has nan"),
        (Adjustments(logit_bias=((5, 1.0), (5, 2.0))), "twice"),
        (Adjustments(logit_bias=((64, 1.0),)), "token 64 is not in the vocabulary of 64"),
        (Adjustments(logit_bias=((-1, 1.0),)), "token -1 is not in the vocabulary"),
        (Adjustments(bad_words=((1, 64),)), "token 64"),
        (Adjustments(bad_words=((),)), "without tokens"),
        (Adjustments(min_tokens=-1), "min_tokens is -1"),
    ],
)
def test_what_cannot_be_done_is_refused(adjustments: Adjustments, message: str) -> None:
    engine = Engine(Lively())
    with pytest.raises(InvalidRequestError, match=message):
        engine.add(asked("r", adjustments))
    assert not engine.has_work


@pytest.mark.parametrize("reuses_prefixes", [True, False])
def test_several_answers_to_one_question(reuses_prefixes: bool) -> None:
    """The first is what it is alone; whole pages of the prompt are computed once, or each time."""
    limits = EngineLimits(page_size=4, reuses_prefixes=reuses_prefixes, looks_ahead=True)
    first = asked("0", kinds()["presence"], temperature=1.0, seed=8)
    choices = [
        replace(first, id=str(choice), sampling=replace(first.sampling, choice=choice))
        for choice in range(5)
    ]
    together = run(Engine(Lively(), limits), *choices)
    [alone] = run(Engine(Lively()), first).values()
    assert tokens(together["0"]) == tokens(alone)
    assert len({tuple(tokens(outputs)) for outputs in together.values()}) == 5
    num_cached = [outputs[0].num_cached_tokens for outputs in together.values()]
    assert num_cached == [0, *[8 if reuses_prefixes else 0] * 4]
    for choice in choices:
        [outputs] = run(Engine(Lively()), choice).values()
        assert tokens(outputs) == tokens(together[choice.id])


def test_the_lowest_priority_starts_first() -> None:
    engine = Engine(Lively(), EngineLimits(max_running=1))
    for name, priority in {"a": 0, "b": 5, "c": -1, "d": 0, "e": -1}.items():
        engine.add(replace(asked(name, None), priority=priority))
    ended = []
    while engine.has_work:
        ended += [it.request_id for it in engine.step().outputs if it.finish_reason is not None]
    assert ended == ["c", "e", "a", "d", "b"]
