"""Random choice of tokens: temperature, then top_k, top_p and min_p, then one number a row.

N is the number of rows, V that of tokens. Probabilities are integers, in units of 2**-40 of the
row's best: their sums come out alike in whatever order a device adds, so no row depends on the
batch that it is in. The 24 bits of their floats are those of the logits.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.largest import ascending
from skipserve.engine.request import SamplingParams
from skipserve.model.transfer import to_device

# scale: 1 / temperature; gap: how far below the best min_p reaches, in logits.
FILTERS = np.dtype([(name, np.float64) for name in ("scale", "gap", "top_k", "top_p")])

_UNITS = 2.0**40
# Further out float32 would overflow, or multiply 0 by infinity; the draw is the same.
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 1e-30, 1e30


def filters_of(params: SamplingParams) -> tuple[float, float, float, float]:
    """Return one row's FILTERS. For temperature 0, which draws nothing, they mean nothing."""
    temperature = min(max(params.temperature, _MIN_TEMPERATURE), _MAX_TEMPERATURE)
    gap = temperature * math.log(params.min_p) if params.min_p else -math.inf
    return 1 / temperature, gap, params.top_k or math.inf, params.top_p


def draw(
    greedy: Tensor,
    logits: Tensor,
    best: Tensor,
    rows: NDArray[np.int64],
    filters: NDArray[np.void],
    chances: NDArray[np.float64],
) -> Tensor:
    """Return a token of each row, [B]: of N rows the one where the running probability passes.

    It runs over the tokens that the filters leave, in the order of their ids, and passes the row's
    chance. Tokens that tie with the last one left stay too.

    Args:
        greedy: the tokens of all other rows, int64, [B].
        logits: float32, [B, V].
        best: the largest of each row, [B, 1]; where it is not finite, the row's token is any.
        rows: those that are drawn, [N].
        filters: FILTERS, [N].
        chances: in [0, 1), [N].
    """
    num_tokens = logits.shape[1]
    is_cut = (filters["top_k"] < num_tokens) | (filters["top_p"] < 1)
    numbers = filters.view(np.float64).reshape(-1, 4, 1)
    places, cut_places, columns, shares = to_device(
        [rows, is_cut.nonzero()[0], numbers, chances[:, None]], logits.device
    )
    logits, best = logits.index_select(0, places), best.index_select(0, places)
    scale, gap = columns[:, :2].float().unbind(1)
    if is_cut.any():
        most = int(min(filters["top_k"][is_cut].max(), num_tokens))
        cut = (it.index_select(0, cut_places) for it in (logits, best, columns, gap))
        gap = gap.index_copy(0, cut_places, _cut_gap(most, *cut))
    below_best = logits - best
    weights = weigh(below_best, scale)
    if is_cut.any() or np.isfinite(filters["gap"]).any():
        weights.mul_(_is_at_least(below_best, gap))
    return greedy.index_copy(0, places, _pick(weights, shares)[:, 0])


def _cut_gap(most: int, logits: Tensor, best: Tensor, columns: Tensor, gap: Tensor) -> Tensor:
    """Return how far below the best the filters reach in each row, in logits, [N, 1].

    Args:
        most: the largest top_k of these rows, at most V.
        logits: of these rows, [N, V].
        best: likewise, [N, 1].
        columns: their FILTERS, [N, 4, 1].
        gap: how far min_p reaches, [N, 1].
    """
    scale, _, top_k, top_p = columns.unbind(1)
    below_best = ascending(logits, most).sub_(best)
    ranks = torch.arange(most, 0, -1, dtype=logits.dtype, device=logits.device)
    weights = weigh(below_best, scale.float()).mul_(_is_at_least(top_k.float(), ranks))
    return below_best.gather(1, _pick(weights, 1 - top_p)).maximum(gap)


def _is_at_least(x: Tensor, y: Tensor) -> Tensor:
    """Return 1.0 where x >= y, else 0.0; torch has no fast comparison with a column."""
    # The difference of two floats is 0 only if they are equal.
    return (x - y).ge_(0)


def weigh(below_best: Tensor, scale: Tensor) -> Tensor:
    """Return probabilities, that of the best being _UNITS, [N, V]; the same bits in any batch."""
    # Not exp2: on the CPU it computes the last few numbers of a tensor in another way.
    return (below_best * scale).exp_().mul_(_UNITS)


def _pick(weights: Tensor, share: Tensor) -> Tensor:
    """Return where the running sum of each row first passes a share in [0, 1] of its all, [N, 1].

    For a share of 1 it is the last place; a share of 53 bits below 1 rounds to less than all.
    """
    sums = weights.long().cumsum_(dim=-1)
    total = sums[:, -1:]
    aims = (total * share).long()
    # A share of 1 passes the end, and with a NaN the sums need not ascend.
    return torch.searchsorted(sums, aims, right=True).clamp_(max=weights.shape[1] - 1)
