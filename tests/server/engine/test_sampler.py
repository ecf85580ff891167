"""Tokens from logits: greedy, seeded draws, log-probabilities."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from fake_decoder import VOCAB, make_request
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skipserve.engine.sampler import sample, uniform
from skipserve.engine.sequence import Sequence
from skipserve.errors import EngineError

pytestmark = pytest.mark.fast


def _logits(seed: int = 0, num_rows: int = 1) -> Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def _draw(logits: Tensor, num_draws: int, **sampling: Any) -> list[int]:
    """Return what many seeds draw from the same logits."""
    sequences = [Sequence(make_request(seed=seed, **sampling)) for seed in range(num_draws)]
    return [s.token_id for s in sample(logits.expand(num_draws, -1), sequences)]


def test_temperature_0_takes_the_most_probable() -> None:
    logits = _logits()
    assert set(_draw(logits, 5, temperature=0.0)) == {int(logits.argmax())}


def test_the_same_seed_and_position_draw_the_same_whatever_else_runs() -> None:
    logits = _logits(num_rows=3)
    sequences = [Sequence(make_request(temperature=1.0, seed=seed)) for seed in (7, 8, 9)]
    together = sample(logits, sequences)
    for row, sequence, drawn in zip(logits, sequences, together, strict=True):
        assert sample(row[None], [sequence]) == [drawn]


def test_positions_draw_anew() -> None:
    sequences = [
        Sequence(make_request(temperature=1.0, seed=7), generated_ids=[9] * n) for n in range(50)
    ]
    drawn = sample(torch.zeros(1, VOCAB).expand(50, -1), sequences)
    assert len({s.token_id for s in drawn}) > 20


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float) -> None:
    logits = _logits()
    wanted = (logits[0] / temperature).softmax(0)
    counts = Counter(_draw(logits, 1500, temperature=temperature))
    drawn = torch.tensor([counts[i] / 1500 for i in range(VOCAB)])
    # Four standard deviations of a share.
    assert ((drawn - wanted).abs() < 4 * (wanted * (1 - wanted) / 1500).sqrt() + 1e-3).all()


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9])
def test_top_p_keeps_the_smallest_set_that_holds_so_much(top_p: float) -> None:
    logits = _logits()
    probabilities, token_ids = logits[0].softmax(0).sort(descending=True)
    num_kept = next(n for n in range(1, VOCAB + 1) if probabilities[:n].sum() >= top_p)
    drawn = set(_draw(logits, 500, temperature=1.0, top_p=top_p))
    assert drawn <= set(token_ids[:num_kept].tolist())
    if num_kept <= 5:
        assert drawn == set(token_ids[:num_kept].tolist())


@given(st.floats(5e-324, 1e300), st.floats(0, 1, exclude_min=True), st.integers(0, 2**64 - 1))
def test_any_parameters_draw_a_token(temperature: float, top_p: float, seed: int) -> None:
    sequence = Sequence(make_request(temperature=temperature, top_p=top_p, seed=seed))
    for logits in (_logits(), torch.zeros(1, VOCAB), torch.eye(1, VOCAB) * 1e30):
        (drawn,) = sample(logits, [sequence])
        assert 0 <= drawn.token_id < VOCAB


def test_a_tiny_temperature_is_greedy() -> None:
    logits = _logits()
    assert set(_draw(logits, 20, temperature=1e-300)) == {int(logits.argmax())}


def test_a_masked_token_is_never_drawn() -> None:
    logits = torch.full((1, VOCAB), -math.inf)
    logits[0, 5] = logits[0, 9] = 1.0
    assert set(_draw(logits, 50, temperature=1.0)) == {5, 9}


def test_uniform_numbers_are_the_same_everywhere() -> None:
    """The published bits of Philox 4x64: a seed must mean the same on every machine."""
    assert uniform(0, 1) == uniform(2**64, 1)
    assert uniform(-1, 3) == uniform(2**64 - 1, 3)
    bits = int(np.random.Philox(key=5, counter=7).random_raw())
    assert uniform(5, 7) == (bits >> 11) / 2**53


def test_uniform_numbers_are_uniform() -> None:
    numbers = np.array([uniform(seed, position) for seed in range(50) for position in range(50)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=10, range=(0, 1))
    assert np.abs(counts - 250).max() < 4 * math.sqrt(250)
    assert len(set(numbers)) == 2500


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logprobs_are_the_models_own(temperature: float) -> None:
    logits = _logits()
    request = make_request(temperature=temperature, top_p=0.5, num_top_logprobs=3)
    (drawn,) = sample(logits, [Sequence(request)])
    wanted = logits[0].double().log_softmax(0)
    assert drawn.logprob == pytest.approx(float(wanted[drawn.token_id]), abs=1e-5)
    best = wanted.sort(descending=True)
    assert [t.token_id for t in drawn.top_logprobs] == best.indices[:3].tolist()
    reported = [t.logprob for t in drawn.top_logprobs]
    assert reported == pytest.approx(best.values[:3].tolist(), abs=1e-5)


def test_logprobs_are_reported_only_where_asked_for() -> None:
    sequences = [Sequence(make_request(num_top_logprobs=n)) for n in (None, 0, 2 * VOCAB)]
    none, own, all_of_them = sample(_logits(num_rows=3), sequences)
    assert (none.logprob, none.top_logprobs) == (None, ())
    assert own.logprob is not None
    assert own.top_logprobs == ()
    assert len(all_of_them.top_logprobs) == VOCAB


def test_a_logit_that_is_not_a_number_is_an_error() -> None:
    logits = _logits()
    logits[0, 3] = math.nan
    with pytest.raises(EngineError, match="not a number"):
        sample(logits, [Sequence(make_request())])
