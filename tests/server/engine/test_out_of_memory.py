"""A device that has no memory for a step: one request ends, the others get their answers."""

import weakref
from dataclasses import dataclass, field, replace

import pytest
import torch
from fake_decoder import EOS_ID, NUM_LAYERS, FakeDecoder, make_request
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_strategies import plans
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import Failed, FailureKind
from skipserve.engine.request import Request
from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache
from skipserve_policies.plan import trim

pytestmark = pytest.mark.fast

LARGE = 10**9


class Scarce(FakeDecoder):
    """A decoder whose device has memory for so many rows, and now and then for none.

    Attributes:
        max_rows: that it has memory for.
        fails_at: forwards for which there is none, counted from 0.
        num_failures: how often it had none.
    """

    def __init__(self, max_rows: int = LARGE, fails_at: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.max_rows = max_rows
        self.fails_at = fails_at
        self.num_failures = 0
        self.num_forwards = 0
        self.scratch: weakref.ref[Tensor] | None = None

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        self.num_forwards += 1
        scratch = torch.zeros(1)
        self.scratch = weakref.ref(scratch)
        logits = super().forward(batch, cache)
        # Late, when the step has written all its keys and values.
        if len(batch.token_ids) > self.max_rows or self.num_forwards - 1 in self.fails_at:
            self.num_failures += 1
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return logits


class Ending(Scarce):
    """A decoder that always ends the answer."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        logits = super().forward(batch, cache)
        logits[:, EOS_ID] = 1e9
        return logits


@dataclass
class Story:
    """What came of some requests: their tokens, and who failed."""

    tokens: dict[str, list[int]] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)

    @property
    def lost(self) -> list[str | None]:
        """Those that failed, in their order."""
        return [failed.request_id for failed in self.failed]


def _run(engine: Engine, *requests: Request) -> Story:
    """Run requests to their end; after that nothing of them is left."""
    story = Story({request.id: [] for request in requests})
    for request in requests:
        engine.add(request)
    while engine.has_work:
        _step(engine, story)
    assert engine.check() == []
    assert engine.state.num_pages_used == engine.state.num_running == engine.state.num_waiting == 0
    return story


def _step(engine: Engine, story: Story) -> None:
    result = engine.step()
    for output in result.outputs:
        assert output.token_id is not None
        story.tokens.setdefault(output.request_id, []).append(output.token_id)
    story.failed += result.failed
    assert engine.check() == []


def _alone(request: Request) -> list[int]:
    return _run(Engine(FakeDecoder()), request).tokens[request.id]


def _requests(*names: str) -> list[Request]:
    return [make_request(name, num_text=3 + i, max_tokens=6) for i, name in enumerate(names)]


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_the_last_to_arrive_is_given_up_and_the_others_get_their_answers(looks_ahead: bool) -> None:
    """Prompts of 5, 6, 7 and 8 rows, with memory for 20."""
    engine = Engine(Scarce(max_rows=20), EngineLimits(looks_ahead=looks_ahead))
    requests = _requests("a", "b", "c", "d")
    story = _run(engine, *requests)
    assert story.failed == [
        Failed(
            "d",
            "the device ran out of memory while the engine ran the request",
            FailureKind.OUT_OF_MEMORY,
        )
    ]
    assert story.tokens == {**{r.id: _alone(r) for r in requests[:3]}, "d": []}
    assert engine.state.num_preemptions == 3


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_a_prompt_is_given_up_before_an_answer(looks_ahead: bool) -> None:
    """Even if it came first, and had to wait."""
    engine = Engine(Scarce(fails_at=frozenset({1})), EngineLimits(looks_ahead=looks_ahead))
    story, answering = Story(), _requests("a", "b")
    for request in answering:
        engine.add(replace(request, cache_salt=request.id))
    _step(engine, story)
    engine.add(make_request("prompt", num_text=30))
    engine._sequences["prompt"].arrived = 0.0
    while engine.has_work:
        _step(engine, story)
    assert story.lost == ["prompt"]
    assert story.tokens == {request.id: _alone(request) for request in answering}


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_one_request_fails_alone_and_the_engine_goes_on(looks_ahead: bool) -> None:
    engine = Engine(Scarce(max_rows=10), EngineLimits(looks_ahead=looks_ahead))
    assert _run(engine, make_request("large", num_text=20)).lost == ["large"]
    (small,) = _requests("small")
    assert _run(engine, small).tokens["small"] == _alone(small)


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_a_device_that_has_no_memory_left_ends_all(looks_ahead: bool) -> None:
    model = Scarce(max_rows=0)
    story = _run(Engine(model, EngineLimits(looks_ahead=looks_ahead)), *_requests(*"abcde"))
    assert story.lost == ["e", "d", "c", "b", "a"]
    assert model.num_failures == 5


def test_looking_ahead_the_step_before_still_counts() -> None:
    engine = Engine(Scarce(fails_at=frozenset({1})), EngineLimits(looks_ahead=True))
    requests = _requests("a", "b")
    story = Story()
    for request in requests:
        engine.add(request)
    _step(engine, story)
    assert story.tokens == {}
    _step(engine, story)
    alone = {request.id: _alone(request) for request in requests}
    assert story.tokens == {name: tokens[:1] for name, tokens in alone.items()}
    assert story.lost == ["b"]
    assert (engine.state.num_running, engine.state.num_waiting) == (0, 1)
    while engine.has_work:
        _step(engine, story)
    assert story.tokens["a"] == alone["a"]


def test_looking_ahead_nobody_fails_for_rows_that_lead_nowhere() -> None:
    """The step before, read only then, has ended the request."""
    model = Ending(fails_at=frozenset({1}))
    engine = Engine(model, EngineLimits(looks_ahead=True))
    story = _run(engine, make_request("a", ends_at_eos=True, max_tokens=9))
    assert model.num_failures == 1
    assert story.lost == []
    assert len(story.tokens["a"]) == 1


def test_what_can_be_computed_again_is_given_up_when_nothing_holds_the_step_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Scarce(fails_at=frozenset({0}))
    engine = Engine(model)
    free_memory, was_held = engine._runner.free_memory, []

    def spy() -> None:
        assert model.scratch is not None
        was_held.append(model.scratch() is not None)
        free_memory()

    monkeypatch.setattr(engine._runner, "free_memory", spy)
    engine.add(make_request("a", num_images=1))
    engine.step()
    assert was_held == [False]
    assert engine.state.encoder_bytes == 0


def test_what_was_published_before_is_found_again() -> None:
    """Six of seven positions lie in pages that the steps before had filled."""
    model = Scarce(fails_at=frozenset({2}))
    engine = Engine(model, EngineLimits(page_size=3))
    for request in _requests("a", "b"):
        engine.add(request)
    num_rows = []
    while engine.has_work:
        report = engine.step().report
        num_rows.append(report.num_rows if report else 0)
    assert num_rows == [5, 4, 0, 1, 1, 1, 1]


@given(st.data())
@settings(max_examples=15)
def test_whenever_memory_is_short_the_survivors_are_unharmed(data: st.DataObject) -> None:
    plan = plans(NUM_LAYERS).map(trim)
    requests = [
        make_request(
            str(i),
            num_text=i,
            num_images=data.draw(st.integers(0, 1)),
            max_tokens=4,
            plan=data.draw(plan),
            temperature=data.draw(st.sampled_from([0.0, 1.0])),
            seed=i,
        )
        for i in range(4)
    ]
    model = Scarce(fails_at=data.draw(st.frozensets(st.integers(0, 9), max_size=3)))
    limits = EngineLimits(
        max_batch_tokens=data.draw(st.integers(1, 20)),
        max_running=data.draw(st.integers(1, 4)),
        page_size=data.draw(st.integers(1, 5)),
        kv_cache_bytes=model.cache_bytes_per_token() * data.draw(st.integers(30, 60)),
        looks_ahead=data.draw(st.booleans()),
    )
    story = _run(Engine(model, limits), *requests)
    assert len(story.failed) <= model.num_failures
    for request in requests:
        alone, found = _alone(request), story.tokens[request.id]
        assert found == (alone[: len(found)] if request.id in story.lost else alone)
