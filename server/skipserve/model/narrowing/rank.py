"""Ranks visual rows inside the decoder, on the device, in float32.

Ties go to the row that comes first, and what is left keeps its order. Shapes: N rows of a prompt,
V of them visual, D hidden, H query heads, K key/value heads, C head size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve.model.narrowing.handover import Survivors
from skipserve_policies.narrowing import pivot_counts


def attention_to_rows(query: Tensor, keys: Tensor) -> Tensor:
    """Return how much a row attends to all of a sequence, mean over heads, [N] float32.

    Args:
        query: of the row, which comes last, [H, C].
        keys: of all rows, [N, K, C].
    """
    num_heads, head_size = query.shape
    by_group = query.float().view(keys.shape[1], -1, head_size)
    scores = by_group @ keys.float().permute(1, 2, 0) / math.sqrt(head_size)
    return scores.softmax(dim=-1).view(num_heads, -1).mean(dim=0)


def best(scores: Tensor, count: int) -> Tensor:
    """Return the places of the highest scores [V], the best first."""
    return scores.sort(descending=True, stable=True).indices[:count]


def most_looked_at(attention: Tensor, visual: Tensor, count: int) -> Tensor:
    """Return the visual rows [V] that are attended to most, ascending; of attention [N]."""
    chosen = visual[best(attention[visual], count)]
    return chosen.sort().values


def least_like_pivots(
    hidden: Tensor, keys: Tensor, visual: Tensor, num_behind: int, count: int
) -> Tensor:
    """Return the visual rows that resemble a few others least, ascending (dart).

    Pivots are the visual rows, and the rows behind the last visual one, whose keys have the highest
    L1 norms. Each in turn, visual ones first, takes equally many of the visual rows that are still
    free and least like it. The visual pivots stay too. Source: arXiv 2502.11494.

    Args:
        hidden: the rows, normalised as behind the last block, [N, D].
        keys: of the rows in the block before, [N, K, C].
        visual: the visual rows, [V].
        num_behind: rows behind the last visual one.
        count: how many are left, pivots included.
    """
    norms, num_rows = keys.float().abs().sum(dim=(1, 2)), len(hidden)
    num_of_image, num_of_text = pivot_counts(len(visual), num_behind)
    of_image = best(norms[visual], num_of_image).sort().values
    behind = best(norms[num_rows - num_behind :], num_of_text).sort().values
    pivots = torch.cat([visual[of_image], behind + num_rows - num_behind])
    units = F.normalize(hidden.float(), dim=-1)
    likeness = units[pivots] @ units[visual].T
    is_taken = torch.zeros(len(visual), dtype=torch.bool, device=hidden.device)
    is_taken[of_image] = True
    share = (count - len(of_image)) // len(pivots)
    for of_pivot in likeness:
        is_taken[best((-of_pivot).masked_fill(is_taken, -math.inf), share)] = True
    return visual[_true_places(is_taken, count)]


def leave(survivors: Survivors, chosen: Tensor) -> Tensor:
    """Let visual rows leave but those that are chosen, ascending; return which rows are left."""
    is_left = torch.ones_like(survivors.ids, dtype=torch.bool)
    is_left[survivors.visual] = False
    is_left[chosen] = True
    kept = _true_places(is_left, len(is_left) - len(survivors.visual) + len(chosen))
    survivors.ids = survivors.ids[kept]
    survivors.visual = (is_left.cumsum(0) - 1)[chosen]
    return kept


def _true_places(mask: Tensor, count: int) -> Tensor:
    """Return where a mask is true, ascending; `count` is how often, so that nobody must wait."""
    return (~mask).to(torch.int8).sort(stable=True).indices[:count]
