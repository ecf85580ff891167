"""The sampler of a batch: greedy and drawn rows, seats, log-probabilities, independence of rows."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skipserve.engine.philox import uniform
from skipserve.engine.request import Adjustments, SamplingParams
from skipserve.engine.sampler import SampledTokens, Sampler

pytestmark = pytest.mark.fast

VOCAB = 67

MIXED: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8, "num_top_logprobs": 2},
    {"temperature": 1.5, "top_k": 5},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 0.0, "num_top_logprobs": 0},
    {"temperature": 2.0, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "num_top_logprobs": 20},
    {"temperature": 0.0, "adjustments": Adjustments(logit_bias=((5, 9.0),)), "num_top_logprobs": 1},
    {"temperature": 1.0, "adjustments": Adjustments(bad_words=((0,), (9,)), min_tokens=200)},
)


def _logits(num_rows: int = 1, num_tokens: int = VOCAB, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Rounded, so that tokens tie.
    return (torch.randn(num_rows, num_tokens, generator=generator) * 3).round(decimals=1)


def _params(**sampling: Any) -> SamplingParams:
    return SamplingParams(max_tokens=1, **sampling)


def _sample(
    logits: Tensor, params: list[SamplingParams], positions: list[int] | None = None
) -> SampledTokens:
    """Sample with seats that run against the order of the rows."""
    sampler = Sampler(len(params))
    seats = np.arange(len(params))[::-1]
    for seat, row_params in zip(seats.tolist(), params, strict=True):
        sampler.place(seat, row_params)
    return sampler.sample(logits, seats, np.array(positions or [9] * len(params))).read()


def _mixed(num_rows: int) -> list[SamplingParams]:
    return [_params(seed=row, **MIXED[row % len(MIXED)]) for row in range(num_rows)]


def test_temperature_0_takes_the_first_of_the_best() -> None:
    logits = _logits(4)
    logits[1, 60] = logits[1, 5] = 50.0
    greedy = [_params(temperature=0.0, seed=seed, top_p=0.5, top_k=9) for seed in range(4)]
    assert _sample(logits, greedy).token_ids == logits.argmax(dim=-1).tolist()
    assert _sample(logits, greedy).token_ids[1] == 5


@pytest.mark.parametrize("num_tokens", [1, 67, 448])
def test_no_row_depends_on_the_others(num_tokens: int) -> None:
    logits, params = _logits(49, num_tokens), _mixed(49)
    positions = [100 + row // 3 for row in range(49)]
    together = _sample(logits, params, positions)
    assert len(together.logprobs) == 21
    for size in (1, 2, 5, 48):
        for start in range(0, 49, size):
            part = slice(start, start + size)
            found = _sample(logits[part], params[part], positions[part])
            assert found.token_ids == together.token_ids[part]
            for row, logprobs in found.logprobs.items():
                assert logprobs == together.logprobs[start + row]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40))
def test_a_draw_depends_on_seed_and_position(seed: int, position: int) -> None:
    """Without filters it is the inverse of the running probability."""
    logits = _logits()
    found = _sample(logits, [_params(seed=seed)], [position]).token_ids[0]
    running = np.append(0, logits[0].double().softmax(0).cumsum(0))
    (chance,) = uniform(np.array([seed % 2**64], np.uint64), np.array([position]))
    assert running[found] - 1e-6 <= chance <= running[found + 1] + 1e-6


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float) -> None:
    """Pearson's statistic over seeds and positions is what chance makes of it."""
    logits, num_rows = _logits(num_tokens=12), 20_000
    params = [_params(temperature=temperature, seed=seed) for seed in range(200)] * 100
    positions = np.arange(num_rows) // 200
    found = _sample(logits.expand(num_rows, -1), params, positions.tolist()).token_ids
    wanted = (logits[0].double() / temperature).softmax(0).numpy() * num_rows
    is_common = wanted > 5
    counts = np.bincount(found, minlength=12)
    statistic = ((counts - wanted) ** 2 / wanted)[is_common].sum()
    degrees = is_common.sum() - 1
    assert statistic < degrees + 4 * math.sqrt(2 * degrees)


def test_a_seat_forgets_who_had_it() -> None:
    sampler, logits = Sampler(2), _logits()
    seats, positions = np.array([1]), np.array([3])
    for params in (*_mixed(7), *reversed(_mixed(7))):
        sampler.place(1, params)
        fresh = Sampler(2)
        fresh.place(1, params)
        found = sampler.sample(logits, seats, positions).read()
        assert found == fresh.sample(logits, seats, positions).read()
        assert (params.num_top_logprobs is None) == (found.logprobs == {})


def test_a_seat_that_changes_hands_before_the_read() -> None:
    sampler, logits = Sampler(1), _logits()
    sampler.place(0, _params(temperature=0.0, num_top_logprobs=3))
    samples = sampler.sample(logits, np.array([0]), np.array([3]))
    sampler.place(0, _params(temperature=0.0))
    assert len(samples.read().logprobs[0].top) == 3


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logprobs_are_the_models_own(temperature: float) -> None:
    logits = _logits()
    found = _sample(logits, [_params(temperature=temperature, top_p=0.5, num_top_logprobs=9)])
    wanted = logits[0].double().log_softmax(0)
    assert found.logprobs[0].logprob == pytest.approx(float(wanted[found.token_ids[0]]), abs=1e-5)
    best = wanted.sort(descending=True, stable=True)
    top = found.logprobs[0].top
    assert [token.token_id for token in top] == best.indices[:9].tolist()
    assert [token.logprob for token in top] == pytest.approx(best.values[:9].tolist(), abs=1e-5)


def test_logprobs_are_reported_only_where_asked_for() -> None:
    params = [_params(num_top_logprobs=count) for count in (None, 0, None, 2 * VOCAB)]
    logprobs = _sample(_logits(4), params).logprobs
    assert {row: len(it.top) for row, it in logprobs.items()} == {1: 0, 3: VOCAB}
    assert type(logprobs[3].logprob) is float
    assert type(logprobs[3].top[0].token_id) is int


def test_logprobs_of_masked_tokens() -> None:
    logits = torch.full((1, VOCAB), -math.inf)
    logits[0, 5] = 2.0
    top = _sample(logits, [_params(num_top_logprobs=2)]).logprobs[0].top
    assert [(token.token_id, token.logprob) for token in top] == [(5, 0.0), (0, -math.inf)]


@pytest.mark.parametrize("sampling", MIXED)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_not_a_number_is_an_error(sampling: dict[str, Any], value: float) -> None:
    sampler, logits = Sampler(2), _logits(2)
    logits[1, 3] = value
    sampler.place(0, _params(**sampling))
    samples = sampler.sample(logits, np.zeros(2, np.int64), np.array([4, 5]))
    assert 0 <= int(samples.token_ids.min()) <= int(samples.token_ids.max()) < VOCAB
    assert samples.read().faulty == {1}


def test_a_row_without_any_token_is_faulty() -> None:
    assert _sample(torch.full((1, VOCAB), -math.inf), [_params()]).faulty == {0}
    assert _sample(torch.zeros(1, VOCAB), [_params()]).faulty == set()


def test_a_huge_batch() -> None:
    logits, params = _logits(3000, 300), _mixed(3000)
    found = _sample(logits, params)
    assert found.token_ids[2990:] == _sample(logits[2990:], params[2990:]).token_ids
    assert len(found.token_ids) == 3000


def test_no_rows() -> None:
    none = np.zeros(0, np.int64)
    found = Sampler(2).sample(_logits()[:0], none, none).read()
    assert found == SampledTokens([], {})
