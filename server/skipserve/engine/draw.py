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

from skipserve.engine.row_order import ascending
from skipserve.engine.types import SamplingParams

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
    logits: Tensor, best: Tensor, filters: NDArray[np.void], chances: NDArray[np.float64]
) -> Tensor:
    """Return a token of each row, [N]: the one at which the running probability passes `chances`.

    It runs over the tokens that the filters leave, in the order of their ids. Tokens that tie with
    the last one left stay too.

    Args:
        logits: float32, [N, V].
        best: the largest of each row, [N, 1]; finite, else the row's token is any.
        filters: FILTERS, [N].
        chances: in [0, 1), [N].
    """
    columns = torch.from_numpy(filters.view(np.float64).reshape(-1, 4, 1)).to(logits.device)
    scale, gap = columns[:, :2].float().unbind(1)
    is_cut = (filters["top_k"] < logits.shape[1]) | (filters["top_p"] < 1)
    if is_cut.any():
        rows = torch.from_numpy(is_cut.nonzero()[0]).to(logits.device)
        cut = (it.index_select(0, rows) for it in (logits, best, columns))
        gap[rows] = gap[rows].maximum(_cut_gap(*cut))
    below_best = logits - best
    weights = weigh(below_best, scale)
    if is_cut.any() or np.isfinite(filters["gap"]).any():
        weights.mul_(_is_at_least(below_best, gap))
    return _pick(weights, torch.from_numpy(chances[:, None]).to(logits.device))[:, 0]


def _cut_gap(logits: Tensor, best: Tensor, columns: Tensor) -> Tensor:
    """Return how far below the best top_k and then top_p reach in each row, in logits, [N, 1]."""
    scale, _, top_k, top_p = columns.unbind(1)
    below_best = ascending(logits).sub_(best)
    ranks = torch.arange(logits.shape[1], 0, -1, dtype=logits.dtype, device=logits.device)
    weights = weigh(below_best, scale.float()).mul_(_is_at_least(top_k.float(), ranks))
    return below_best.gather(1, _pick(weights, 1 - top_p))


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
