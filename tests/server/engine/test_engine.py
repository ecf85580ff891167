"""The engine without processes, on a small random decoder."""

import time
from dataclasses import replace

import pytest
import torch
from fake_decoder import CONFIG, EOS_ID, NUM_LAYERS, FakeDecoder, make_request, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_strategies import plans
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import (
    EngineState,
    Executed,
    Failed,
    FailureKind,
    FinishReason,
    Stage,
    StepOutput,
)
from skipserve.engine.request import Request
from skipserve.errors import InvalidRequestError
from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache
from skipserve_policies import flops
from skipserve_policies.plan import Plan, TokenClass, trim

pytestmark = pytest.mark.fast

PAGE_BYTES = FakeDecoder().cache_bytes_per_token() * 4


def _run(engine: Engine, *requests: Request) -> list[StepOutput]:
    for request in requests:
        engine.add(request)
    outputs = []
    while engine.has_work:
        outputs += engine.step().outputs
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


def test_requests_share_steps_and_do_not_touch_each_other() -> None:
    requests = [make_request(str(i), num_text=i + 1, num_images=i % 2) for i in range(4)]
    outputs = _run(Engine(FakeDecoder()), *requests)
    assert [o.request_id for o in outputs] == [r.id for r in requests] * 4
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
    engine = Engine(FakeDecoder())
    engine.add(request)
    total = Executed()
    while engine.has_work:
        report = engine.step().report
        assert report is not None
        total += report.executed["full"]
    shape = flops.Request(request.token_classes, max_tokens, num_images=num_images)
    assert total.flops == flops.request_flops(CONFIG.sizes, plan_of(request), shape).total


def test_a_step_says_what_it_did() -> None:
    engine = Engine(FakeDecoder())
    for name, policy_name in (("a", "full"), ("b", "other"), ("c", "other")):
        engine.add(replace(make_request(name), policy_name=policy_name))
    report = engine.step().report
    assert report is not None
    assert (report.num_rows, report.num_sequences, report.num_plans) == (15, 3, 1)
    assert set(report.executed) == {"full", "other"}
    assert report.seconds > 0


def test_time_is_booked_to_stages() -> None:
    first, second, third, last = _run(Engine(FakeDecoder()), make_request(num_images=1))
    assert set(first.stage_seconds) == {Stage.QUEUE, Stage.VISION_ENCODE, Stage.PREFILL}
    assert second.stage_seconds == third.stage_seconds == {}
    assert set(last.stage_seconds) == {Stage.DECODE}
    assert min((*first.stage_seconds.values(), *last.stage_seconds.values())) >= 0


def test_what_was_computed_before_is_not_computed_again() -> None:
    engine = Engine(FakeDecoder(), EngineLimits(page_size=4))
    request = make_request("a", num_text=9, num_images=1)
    before = _run(engine, request)
    after = _run(engine, replace(request, id="b"))
    assert _tokens(after) == _tokens(before)
    assert before[0].num_cached_tokens == 0
    assert after[0].num_cached_tokens == 12
    assert {output.num_cached_tokens for output in after[1:]} == {0}


def test_nothing_is_kept_where_it_is_not_wanted() -> None:
    engine = Engine(FakeDecoder(), EngineLimits(page_size=4, reuses_prefixes=False))
    for name in "ab":
        outputs = _run(engine, make_request(name, num_text=9))
        assert outputs[0].num_cached_tokens == 0
    assert engine.state.num_pages_cached == 0


def test_the_engine_says_how_it_stands() -> None:
    limits = EngineLimits(page_size=4, max_running=1, kv_cache_bytes=PAGE_BYTES * 16)
    engine = Engine(FakeDecoder(), limits)
    assert engine.state == EngineState(num_pages=16)
    for name in "ab":
        engine.add(make_request(name, num_text=9, num_images=1))
    engine.step()
    state = engine.state
    assert (state.num_running, state.num_waiting) == (1, 1)
    assert (state.num_pages_used, state.num_encoder_queries, state.num_encoder_hits) == (5, 1, 0)
    assert state.encoder_bytes > 0
    _run(engine)
    engine.audit()
    state = engine.state
    assert (state.num_running, state.num_waiting, state.num_pages_used) == (0, 0, 0)
    assert state.num_pages_cached == 4
    assert state.num_faults == 0


def test_pages_that_leak_are_a_fault() -> None:
    engine = Engine(FakeDecoder())
    engine._pool.allocate(1)
    _run(engine, make_request())
    engine.audit()
    assert engine.state.num_faults > 0
    engine._pool.release([0])
    _run(engine, make_request("again"))
    engine.audit()
    assert engine.check() == []
    assert engine.state.num_faults > 0, "a fault that was there is not forgotten"


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_requests_that_do_not_all_fit_get_their_answers(looks_ahead: bool) -> None:
    """Five requests in a pool that holds two or three: some have to go and come back."""
    limits = EngineLimits(
        page_size=4, kv_cache_bytes=PAGE_BYTES * 10, max_batch_tokens=7, looks_ahead=looks_ahead
    )
    requests = [make_request(str(i), num_text=2 * i, max_tokens=20) for i in range(5)]
    engine = Engine(FakeDecoder(), limits)
    outputs = _run(engine, *requests)
    assert engine.state.num_preemptions > 0
    for request in requests:
        alone = _run(Engine(FakeDecoder()), request)
        assert _tokens([o for o in outputs if o.request_id == request.id]) == _tokens(alone)


def test_looking_ahead_launches_a_step_before_the_last_one_is_read() -> None:
    engine = Engine(_Biased(EOS_ID), EngineLimits(looks_ahead=True))
    engine.add(make_request(max_tokens=9, ends_at_eos=True))
    assert engine.step().outputs == []
    (output,) = engine.step().outputs
    assert output.finish_reason is FinishReason.STOP
    # One row too many was under way; it leads nowhere, but it was computed and is counted.
    assert engine.has_work
    result = engine.step()
    assert result.outputs == []
    assert result.report is not None
    assert result.report.num_rows == 1
    assert not engine.has_work


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_the_times_of_all_steps_add_up_to_no_more_than_the_clock(looks_ahead: bool) -> None:
    engine = Engine(FakeDecoder(), EngineLimits(looks_ahead=looks_ahead))
    engine.add(make_request(max_tokens=9))
    begun = time.perf_counter()
    reports = []
    while engine.has_work:
        reports.append(engine.step().report)
    passed = time.perf_counter() - begun
    assert 0 < sum(report.seconds for report in reports if report) <= passed


def test_looking_ahead_a_seat_may_change_hands_before_its_token_is_read() -> None:
    limits = EngineLimits(looks_ahead=True, max_running=1, page_size=4)
    engine = Engine(FakeDecoder(), limits)
    engine.add(make_request("a", num_text=5))
    engine.step()
    engine.cancel("a")
    outputs = _run(engine, make_request("b", num_text=2, max_tokens=12))
    alone = _run(Engine(FakeDecoder()), make_request("b", num_text=2, max_tokens=12))
    assert _tokens(outputs) == _tokens(alone)
    assert engine.check() == []


def test_a_request_that_could_never_run_is_refused() -> None:
    engine = Engine(FakeDecoder(), EngineLimits(page_size=4, kv_cache_bytes=PAGE_BYTES * 3))
    engine.add(make_request("fits", num_text=6, max_tokens=4))
    with pytest.raises(InvalidRequestError, match="12 that the engine has memory for"):
        engine.add(make_request("large", num_text=7, max_tokens=4))


class _Clock:
    """A clock that stands where it is put."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)


def test_a_request_that_waits_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    engine = Engine(FakeDecoder(), EngineLimits(max_running=1))
    for name in "ab":
        engine.add(replace(make_request(name), queue_seconds=5.0))
    engine.step()
    clock.now += 4.9
    assert engine.expire() == []
    clock.now += 0.2
    (failed,) = engine.expire()
    assert (failed.request_id, failed.kind) == ("b", FailureKind.QUEUE_TIMEOUT)
    assert engine.expire() == []
    assert {output.request_id for output in _run(engine)} == {"a"}


def test_a_request_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    engine = Engine(FakeDecoder())
    engine.add(replace(make_request("a"), deadline_seconds=3.0))
    engine.add(make_request("b"))
    engine.step()
    clock.now += 3.0
    (failed,) = engine.expire()
    assert (failed.request_id, failed.kind) == ("a", FailureKind.DEADLINE)
    assert engine.state.num_running == 1
    assert {output.request_id for output in _run(engine)} == {"b"}
    assert engine.check() == []


def test_a_cancelled_request_is_gone_at_once() -> None:
    engine = Engine(FakeDecoder())
    for name in "abc":
        engine.add(make_request(name))
    engine.step()
    engine.add(make_request("d"))
    ended = engine.cancel("a")
    assert ended == StepOutput("a", None, finish_reason=FinishReason.CANCELLED)
    assert engine.cancel("a") is None
    assert engine.cancel("d") is not None
    assert engine.cancel("b") is not None
    assert {output.request_id for output in _run(engine)} == {"c"}
    assert not engine.has_work
    assert engine.state.num_pages_used == 0


@given(st.data())
@settings(max_examples=30)
def test_whatever_is_cancelled_the_others_get_their_answers(data: st.DataObject) -> None:
    """Requests with plans of their own come and go at any point; what finishes is unharmed."""
    plan = plans(NUM_LAYERS).map(trim)
    requests = [make_request(str(i), num_text=i, plan=data.draw(plan)) for i in range(5)]
    limits = EngineLimits(
        max_batch_tokens=data.draw(st.integers(1, 20)),
        max_running=data.draw(st.integers(1, 4)),
        page_size=data.draw(st.integers(1, 5)),
        looks_ahead=data.draw(st.booleans()),
    )
    engine = Engine(FakeDecoder(), limits)
    outputs: list[StepOutput] = []
    cancelled: set[str] = set()
    for request in requests:
        engine.add(request)
        for _ in range(data.draw(st.integers(0, 6))):
            outputs += engine.step().outputs if engine.has_work else []
        name = data.draw(st.sampled_from(["none", *(r.id for r in requests)]))
        if engine.cancel(name) is not None:
            cancelled.add(name)
    outputs += _run(engine)
    for request in requests:
        tokens = _tokens([output for output in outputs if output.request_id == request.id])
        alone = _tokens(_run(Engine(FakeDecoder()), request))
        assert tokens == (alone[: len(tokens)] if request.id in cancelled else alone)
    assert engine.check() == []


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
    with pytest.raises(RuntimeError):
        engine.step()
    assert engine.drop_running() == ["bad"]
    assert engine.check() == []
    outputs = _run(engine, make_request("good"))
    assert _tokens(outputs) == _tokens(_run(Engine(FakeDecoder()), make_request("good")))


class _NotANumber(FakeDecoder):
    """A decoder that says nothing sensible to prompts with images."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        logits = super().forward(batch, cache)
        row_starts = batch.segments[0].row_starts.tolist()
        for place, row in enumerate(batch.logit_rows.tolist()):
            stop = next(stop for stop in row_starts[1:] if row < stop)
            start = row_starts[row_starts.index(stop) - 1]
            if any(start <= visual < stop for visual in batch.visual_rows.tolist()):
                logits[place] = torch.nan
        return logits


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_logits_that_are_no_numbers_end_their_request_alone(looks_ahead: bool) -> None:
    engine = Engine(_NotANumber(), EngineLimits(looks_ahead=looks_ahead))
    requests = [make_request(str(i), num_text=i, num_images=i % 2) for i in range(4)]
    for request in requests:
        engine.add(request)
    failed: list[Failed] = []
    outputs: list[StepOutput] = []
    while engine.has_work:
        result = engine.step()
        failed += result.failed
        outputs += result.outputs
    assert [(each.request_id, each.kind) for each in failed] == [
        ("1", FailureKind.ENGINE),
        ("3", FailureKind.ENGINE),
    ]
    for request in requests[::2]:
        alone = _run(Engine(FakeDecoder()), request)
        assert _tokens([o for o in outputs if o.request_id == request.id]) == _tokens(alone)
    assert {output.request_id for output in outputs} == {"0", "2"}
    assert engine.check() == []
