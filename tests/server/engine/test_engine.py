"""The engine without processes, on a small random decoder."""

from dataclasses import replace

import pytest
import torch
from fake_decoder import CONFIG, EOS_ID, NUM_LAYERS, FakeDecoder, make_request
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_strategies import plans
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.types import Executed, FinishReason, Request, Stage, StepOutput
from skipserve.errors import EngineError, InvalidRequestError
from skipserve.model.batch import Batch
from skipserve.model.decoder import KVCache
from skipserve_policies import flops
from skipserve_policies.plan import Plan, TokenClass, trim

pytestmark = pytest.mark.fast


def _run(engine: Engine, *requests: Request) -> list[StepOutput]:
    for request in requests:
        engine.add(request)
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


def _tokens(outputs: list[StepOutput]) -> list[int]:
    tokens = [output.token_id for output in outputs if output.token_id is not None]
    assert len(tokens) == len(outputs)
    return tokens


def test_a_request_gets_its_tokens_one_a_step() -> None:
    outputs = _run(Engine(FakeDecoder()), make_request(max_tokens=3))
    reasons = [output.finish_reason for output in outputs]
    assert reasons == [None, None, FinishReason.LENGTH]


def test_decoding_step_by_step_equals_computing_all_at_once() -> None:
    """The greedy answer is what the decoder says to prompt and answer in one forward.

    In full all rows do the same, so the answer's rows may stand in the prompt.
    """
    request = make_request(num_text=4, num_images=1, max_tokens=5)
    tokens = _tokens(_run(Engine(FakeDecoder()), request))
    for n in range(1, 5):
        longer = replace(
            request,
            prompt_ids=(*request.prompt_ids, *tokens[:n]),
            token_classes=(
                *request.token_classes[:-1],
                *(TokenClass.TEXT,) * n,
                TokenClass.LAST,
            ),
            plan=Plan.full(NUM_LAYERS),
        )
        assert _tokens(_run(Engine(FakeDecoder()), longer))[0] == tokens[n]


def test_an_end_token_ends_the_answer() -> None:
    outputs = _run(Engine(_Biased(EOS_ID)), make_request(max_tokens=9, ends_at_eos=True))
    assert _tokens(outputs) == [EOS_ID]
    assert outputs[0].finish_reason is FinishReason.STOP


class _Biased(FakeDecoder):
    """A decoder that always says the same."""

    def __init__(self, token_id: int) -> None:
        super().__init__()
        self._token_id = token_id

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        logits = super().forward(batch, cache)
        logits[:, self._token_id] = 1e9
        return logits


def test_requests_run_in_their_order_and_do_not_touch_each_other() -> None:
    requests = [make_request(str(i), num_text=i + 1, num_images=i % 2) for i in range(4)]
    outputs = _run(Engine(FakeDecoder()), *requests)
    assert [o.request_id for o in outputs] == [r.id for r in requests for _ in range(4)]
    for request in requests:
        alone = _run(Engine(FakeDecoder()), request)
        assert _tokens([o for o in outputs if o.request_id == request.id]) == _tokens(alone)


@given(plans(NUM_LAYERS), st.integers(0, 4), st.integers(0, 2), st.integers(1, 4))
@settings(max_examples=30)
def test_executed_adds_up_to_the_planned_flops(
    plan: Plan, num_text: int, num_images: int, max_tokens: int
) -> None:
    request = make_request(
        num_text=num_text, num_images=num_images, max_tokens=max_tokens, plan=trim(plan)
    )
    outputs = _run(Engine(FakeDecoder()), request)
    total = sum((output.executed for output in outputs), Executed())
    shape = flops.Request(request.token_classes, max_tokens, num_images=num_images)
    assert total.flops == flops.request_flops(CONFIG.sizes, request.plan, shape).total


def test_time_is_booked_to_stages() -> None:
    first, second, _, _ = _run(Engine(FakeDecoder()), make_request(num_images=1))
    assert set(first.stage_seconds) == {Stage.QUEUE, Stage.VISION_ENCODE, Stage.PREFILL}
    assert set(second.stage_seconds) == {Stage.DECODE}
    assert min((*first.stage_seconds.values(), *second.stage_seconds.values())) >= 0


def test_a_cancelled_request_is_gone_at_once() -> None:
    engine = Engine(FakeDecoder())
    for name in "abc":
        engine.add(make_request(name))
    engine.step()
    ended = engine.cancel("a")
    assert ended == StepOutput("a", None, finish_reason=FinishReason.CANCELLED)
    assert engine.cancel("a") is None
    assert engine.cancel("b") is not None
    assert {output.request_id for output in _run(engine)} == {"c"}
    assert (engine.num_running, engine.num_waiting, engine.has_work) == (0, 0, False)


@given(st.data())
@settings(max_examples=30)
def test_whatever_is_cancelled_the_others_get_their_answers(data: st.DataObject) -> None:
    """Requests with plans of their own come and go at any point; what finishes is unharmed."""
    plan = plans(NUM_LAYERS).map(trim)
    requests = [make_request(str(i), num_text=i, plan=data.draw(plan)) for i in range(5)]
    engine = Engine(FakeDecoder())
    outputs: list[StepOutput] = []
    cancelled: set[str] = set()
    for request in requests:
        engine.add(request)
        for _ in range(data.draw(st.integers(0, 6))):
            outputs += engine.step() if engine.has_work else []
        name = data.draw(st.sampled_from(["none", *(r.id for r in requests)]))
        if engine.cancel(name) is not None:
            cancelled.add(name)
    outputs += _run(engine)
    for request in requests:
        tokens = _tokens([output for output in outputs if output.request_id == request.id])
        alone = _tokens(_run(Engine(FakeDecoder()), request))
        assert tokens == (alone[: len(tokens)] if request.id in cancelled else alone)
    assert (engine.num_running, engine.num_waiting) == (0, 0)


def test_a_bad_request_is_refused_and_leaves_nothing() -> None:
    engine = Engine(FakeDecoder())
    with pytest.raises(InvalidRequestError):
        engine.add(make_request(max_tokens=1000))
    assert not engine.has_work


class _Failing(FakeDecoder):
    """A decoder that fails at prompts with images."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        if batch.visual_features is not None:
            raise RuntimeError("no")
        return super().forward(batch, cache)


def test_after_a_step_that_failed_the_others_run() -> None:
    engine = Engine(_Failing())
    engine.add(make_request("bad", num_images=1))
    engine.add(make_request("good"))
    with pytest.raises(RuntimeError):
        engine.step()
    assert engine.drop_running() == ["bad"]
    outputs = _run(engine)
    assert _tokens(outputs) == _tokens(_run(Engine(FakeDecoder()), make_request("good")))


class _NotANumber(FakeDecoder):
    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        return super().forward(batch, cache) * torch.nan


def test_logits_that_are_no_numbers_are_an_error() -> None:
    engine = Engine(_NotANumber())
    engine.add(make_request())
    with pytest.raises(EngineError):
        engine.step()
