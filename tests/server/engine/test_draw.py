"""The random choice of tokens, against a slow one written from the definitions."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.draw import FILTERS, draw, filters_of, weigh
from skipserve.engine.request import SamplingParams

pytestmark = pytest.mark.fast

VOCAB = 40
# float32 does not tell apart what is nearer than this.
NEAR = 1e-5


def _logits(seed: int, num_rows: int = 1, num_tokens: int = VOCAB) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, num_tokens, generator=generator) * 3


def _draw(logits: Tensor, chances: NDArray[np.float64], **sampling: Any) -> list[int]:
    filters = np.zeros(len(logits), FILTERS)
    filters[:] = filters_of(SamplingParams(max_tokens=1, **sampling))
    best = logits.amax(dim=-1, keepdim=True)
    greedy, rows = torch.full((len(logits),), -1), np.arange(len(logits))
    return draw(greedy, logits, best, rows, filters, chances).tolist()


def _drawn(logits: Tensor, **sampling: Any) -> set[int]:
    """Return all tokens that evenly spread chances draw from one row of logits."""
    chances = (np.arange(2000) + 0.5) / 2000
    return set(_draw(logits.expand(2000, -1), chances, **sampling))


def _is_due(
    token_id: int, logits: NDArray[np.float64], params: SamplingParams, chance: float
) -> bool:
    """Return whether a chance falls on a token, of those that the filters leave."""
    odds = np.exp((logits - logits.max()) / params.temperature)
    order = np.argsort(-logits, kind="stable")[: params.top_k or None]
    held = np.cumsum(odds[order]) / odds[order].sum()
    last = next((n for n, share in enumerate(held) if share >= params.top_p), -1)
    odds[(logits < logits[order[last]]) | (odds < params.min_p)] = 0
    running = np.cumsum(odds) / odds.sum()
    before = running[token_id - 1] if token_id else 0
    is_there = before - NEAR <= chance <= running[token_id] + NEAR
    return bool(odds[token_id] > 0 and is_there)


def _around(params: SamplingParams) -> Iterator[SamplingParams]:
    """Yield parameters that float32 cannot tell from these."""
    for by_top_p, by_min_p in product((1, 1 - NEAR, 1 + NEAR), repeat=2):
        top_p, min_p = min(params.top_p * by_top_p, 1.0), min(params.min_p * by_min_p, 1.0)
        yield replace(params, top_p=top_p, min_p=min_p)


@given(
    seed=st.integers(0, 1000),
    is_coarse=st.booleans(),
    num_masked=st.integers(0, VOCAB - 1),
    chance=st.floats(0, 1, exclude_max=True),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, VOCAB + 3),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 1)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1)),
)
def test_it_draws_what_the_definitions_say(
    seed: int, is_coarse: bool, num_masked: int, chance: float, **sampling: Any
) -> None:
    logits = _logits(seed)
    if is_coarse:  # many tokens tie
        logits = logits.round()
    logits[
        0, torch.randperm(VOCAB, generator=torch.Generator().manual_seed(seed))[:num_masked]
    ] = -math.inf
    (token_id,) = _draw(logits, np.array([chance]), **sampling)
    params = SamplingParams(max_tokens=1, **sampling)
    exact = logits[0].double().numpy()
    assert any(_is_due(token_id, exact, nearly, chance) for nearly in _around(params))


@given(
    temperature=st.floats(5e-324, 1e300),
    top_k=st.integers(0, 2**31 - 1),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_any_parameters_draw_a_token_that_can_come(chance: float, **sampling: Any) -> None:
    masked = torch.full((1, VOCAB), -math.inf)
    masked[0, 7] = 0.0
    for logits in (_logits(0), torch.zeros(1, VOCAB), torch.eye(1, VOCAB) * 1e30, masked):
        (token_id,) = _draw(logits, np.array([chance]), **sampling)
        assert 0 <= token_id < VOCAB
        assert logits[0, token_id] > -math.inf


def test_a_tiny_temperature_takes_the_best_and_a_huge_one_any() -> None:
    logits = _logits(0)
    assert _drawn(logits, temperature=1e-300) == {int(logits.argmax())}
    assert _drawn(logits, temperature=1e300) == set(range(VOCAB))
    best_five = set(logits[0].topk(5).indices.tolist())
    assert _drawn(logits, temperature=1e300, top_k=5) == best_five


@pytest.mark.parametrize("top_k", [1, 3, VOCAB - 1, VOCAB, 2**31 - 1])
def test_top_k_leaves_so_many(top_k: int) -> None:
    logits = _logits(1) / 10
    wanted = logits[0].topk(min(top_k, VOCAB)).indices.tolist()
    assert _drawn(logits, temperature=1.0, top_k=top_k) == set(wanted)


@pytest.mark.parametrize("num_left", [1, 2, 5, 12])
def test_top_p_leaves_the_smallest_set_that_holds_so_much(num_left: int) -> None:
    logits = _logits(2)
    probabilities, token_ids = logits[0].double().softmax(0).sort(descending=True)
    held = float(probabilities[:num_left].sum())
    few, more = set(token_ids[:num_left].tolist()), set(token_ids[: num_left + 1].tolist())
    assert _drawn(logits, temperature=1.0, top_p=held * (1 - NEAR)) == few
    assert _drawn(logits, temperature=1.0, top_p=held * (1 + NEAR)) == more


def test_the_smallest_top_p_leaves_the_best() -> None:
    assert _drawn(_logits(2), temperature=1.0, top_p=5e-324) == {int(_logits(2).argmax())}


def test_top_p_counts_what_top_k_leaves() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    assert _drawn(logits, temperature=1.0, top_p=0.6) == {0, 1}
    assert _drawn(logits, temperature=1.0, top_p=0.5, top_k=2) == {0}


def test_min_p_leaves_the_best_and_its_equals() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0, 2.0, -math.inf]])
    assert _drawn(logits, temperature=0.5, min_p=1.0) == {1, 3}
    assert _drawn(logits, temperature=0.5, min_p=0.1) == {0, 1, 3}  # exp(-1 / 0.5) is 0.14


@pytest.mark.parametrize("num_tokens", [1, 7, 67, 448])
def test_weights_are_the_same_bits_in_any_batch(num_tokens: int) -> None:
    below_best, scale = -_logits(4, 9, num_tokens).abs(), torch.full((9, 1), 1.3)
    together = weigh(below_best, scale)
    for row in range(9):
        for stop in (row + 1, 9):
            part = slice(row, stop)
            assert weigh(below_best[part], scale[part]).equal(together[part])


def test_ties_with_the_last_one_left_stay() -> None:
    logits = torch.tensor([[3.0, 1.0, 1.0, 0.0]])
    assert _drawn(logits, temperature=1.0, top_k=2) == {0, 1, 2}


def test_chances_spread_as_the_probabilities_do() -> None:
    """Of evenly spread chances, each token gets its share to within one."""
    logits = _logits(3, num_tokens=448)
    num_chances = 20_000
    chances = np.arange(num_chances) / num_chances
    counts = np.bincount(_draw(logits.expand(num_chances, -1), chances, temperature=1.3), None, 448)
    wanted = (logits[0].double() / 1.3).softmax(0).numpy() * num_chances
    assert np.abs(counts - wanted).max() < 1.1


def test_whatever_is_not_a_number_still_gives_a_token() -> None:
    """The step after it may be on its way before anybody looks."""
    for value in (math.nan, math.inf, -math.inf):
        logits = torch.full((1, VOCAB), value)
        for sampling in ({}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}):
            (token_id,) = _draw(logits, np.array([0.5]), temperature=1.0, **sampling)
            assert 0 <= token_id < VOCAB
