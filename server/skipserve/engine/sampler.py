"""Logits -> tokens, with the model's own log-probabilities. A draw depends on seed and position."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skipserve.engine.sequence import Sequence
from skipserve.engine.types import SamplingParams, TokenLogprob
from skipserve.errors import EngineError


@dataclass(frozen=True)
class Sample:
    """A token with what is reported about it, as in StepOutput."""

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()


def sample(logits: Tensor, sequences: list[Sequence]) -> list[Sample]:
    """Choose the next token of each sequence.

    Args:
        logits: float32, [B, V], in the order of the sequences.
        sequences: their parameters apply row by row, and no row depends on another.

    Raises:
        EngineError: a logit is not a number.
    """
    best = logits.max(dim=-1)
    if best.values.isnan().any():  # one NaN makes the maximum NaN
        raise EngineError("the model's output is not a number")
    return [
        _sample_row(row, greedy_id, sequence)
        for row, greedy_id, sequence in zip(logits, best.indices.tolist(), sequences, strict=True)
    ]


def _sample_row(logits: Tensor, greedy_id: int, sequence: Sequence) -> Sample:
    sampling = sequence.request.sampling
    if sampling.temperature == 0:
        token_id = greedy_id
    else:
        token_id = _draw(logits, sampling, uniform(sampling.seed, sequence.num_tokens))
    if sampling.num_top_logprobs is None:
        return Sample(token_id)
    return _with_logprobs(logits, token_id, sampling.num_top_logprobs)


def _draw(logits: Tensor, sampling: SamplingParams, chance: float) -> int:
    """Return the token at which the cumulative probability passes `chance`, in [0, 1).

    Tokens are taken from the most probable down; those after the first ones that together hold
    top_p are left out.
    """
    # In float64, and from the maximum down, a tiny temperature neither overflows nor divides 0/0.
    scores = logits.double()
    scores = (scores - scores.max()) / sampling.temperature
    ordered, token_ids = scores.softmax(dim=-1).sort(descending=True, stable=True)
    cumulative = ordered.cumsum(dim=-1)
    num_kept = int((cumulative < sampling.top_p).sum()) + 1
    kept = cumulative[:num_kept]
    place = min(int((kept <= chance * kept[-1]).sum()), len(kept) - 1)
    return int(token_ids[place])


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) that depends on nothing but its arguments.

    The raw bits of a bit generator, unlike numpy's distributions, never change between versions.
    """
    bits = np.random.Philox(key=seed % 2**64, counter=position).random_raw()
    return float((bits >> 11) * 2.0**-53)


def _with_logprobs(logits: Tensor, token_id: int, num_top: int) -> Sample:
    logprobs = logits.float().log_softmax(dim=-1)
    top = torch.topk(logprobs, min(num_top, len(logprobs)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return Sample(
        token_id=token_id,
        logprob=float(logprobs[token_id]),
        top_logprobs=tuple(TokenLogprob(index, value) for index, value in pairs),
    )
