"""Ranks visual rows inside the decoder, on the device, in float32.

Ties go to the row that comes first, and what is left keeps its order. Shapes: N rows of a prompt,
V of them visual, S behind those, D hidden, H query heads, K key/value heads, C head size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve.model.narrowing.handover import GONE, STAYS, Survivors
from skipserve_policies.narrowing import Departure, pivot_counts

# Attention of several rows is worked out so many numbers at a time.
_MOST_SCORES = 1 << 22


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


def raters(visual: Tensor, behind: Tensor) -> Tensor:
    """Return which rows behind the images see them best, [S] bool (sparsevlm).

    Each visual row parts itself among them by likeness; raters get more than the mean, or all are
    where none does. Source: arXiv 2410.04417, equation 3.

    Args:
        visual: what entered the first block of the visual rows, [V, D].
        behind: of the rows behind, [S, D].
    """
    got = (visual.float() @ behind.float().T).softmax(dim=1).mean(dim=0)
    above = got > got.mean()
    return above | ~above.any()


def attention_of_raters(queries: Tensor, keys: Tensor, is_rater: Tensor) -> Tensor:
    """Return how much the raters attend to all rows of a sequence, their mean, [N] float32.

    Each attends to the rows up to its own; means are taken over heads.

    Args:
        queries: of the last rows of the sequence, [S, H, C].
        keys: of all its rows, [N, K, C].
        is_rater: which of the last rows rate, [S] bool.
    """
    num_asking, num_heads, head_size = queries.shape
    num_rows, num_kv_heads, _ = keys.shape
    by_head = keys.float().permute(1, 2, 0) / math.sqrt(head_size)
    places = torch.arange(num_rows, device=keys.device)
    share = is_rater.float() / is_rater.sum()
    total = torch.zeros(num_rows, device=keys.device)
    at_once = max(_MOST_SCORES // (num_heads * num_rows), 1)
    for start in range(0, num_asking, at_once):
        some = queries[start : start + at_once].float()
        grouped = some.view(len(some), num_kv_heads, -1, head_size).transpose(0, 1)
        scores = grouped.reshape(num_kv_heads, -1, head_size) @ by_head
        scores = scores.view(num_kv_heads, len(some), -1, num_rows)
        own = places[num_rows - num_asking + start :][: len(some)]
        scores.masked_fill_((places > own[:, None])[:, None], -math.inf)
        attention = scores.softmax(dim=-1).mean(dim=(0, 2))
        total += (attention * share[start : start + at_once, None]).sum(dim=0)
    return total


def fates(scores: Tensor, rows: Tensor, leaving: Departure) -> Tensor:
    """Return what becomes of visual rows of which the best stay and the next are merged, [V] int64.

    Args:
        scores: of the rows, [V].
        rows: the residual stream, [V, D].
        leaving: how many of them go on.
    """
    order = best(scores, leaving.num_kept + leaving.num_merging)
    merging = order[leaving.num_kept :]
    found = order.new_full((len(scores),), GONE)
    found[order[: leaving.num_kept]] = STAYS
    found[merging] = clusters(rows[merging], leaving.num_merged) + STAYS + 1
    return found


def clusters(rows: Tensor, count: int) -> Tensor:
    """Return which of some clusters each row belongs to, by peaks of density (DPC-kNN), [M] int64.

    Centres are the rows with the highest product of density, that of so many nearest rows, and
    distance to the next denser one. In float64, for distances of like rows are small differences.
    Source: arXiv 2410.04417, section 3.4.

    Args:
        rows: in the order in which ties are broken, [M, D].
        count: of the clusters.
    """
    distance = _distances(rows.double())
    density = (-distance.sort(dim=1).values[:, :count].square().mean(dim=1)).exp()
    is_tie = density == density[:, None]
    is_denser = (density > density[:, None]) | is_tie.tril(-1)
    to_denser = torch.where(is_denser, distance, distance.max()).amin(dim=1)
    centres = best(density * to_denser, count)
    cluster = distance[centres].argmin(dim=0)
    cluster[centres] = torch.arange(count, device=rows.device)
    return cluster


def _distances(rows: Tensor) -> Tensor:
    """Return how far rows [M, D] are from each other, per root of D, [M, M]: exactly symmetric."""
    products = rows @ rows.T
    products = (products + products.T) / 2
    squares = products.diagonal()
    apart = (squares + squares[:, None] - 2 * products).clamp(min=0)
    return apart.fill_diagonal_(0).sqrt() / math.sqrt(rows.shape[1])


def merged(rows: Tensor, fate: Tensor, count: int) -> Tensor:
    """Return the means of the rows that are merged, [count, D], in their type.

    Args:
        rows: the visual rows, [V, D].
        fate: theirs, [V].
        count: how many rows they make.
    """
    numbers = torch.arange(1, count + 1, device=rows.device)
    is_in = (fate == numbers[:, None]).float()
    return (is_in / is_in.sum(dim=1, keepdim=True) @ rows.float()).to(rows.dtype)


def staying(fate: Tensor, count: int) -> Tensor:
    """Return the places of the rows that stay, ascending; so many do."""
    return _true_places(fate == STAYS, count)


def leave(survivors: Survivors, chosen: Tensor) -> Tensor:
    """Let visual rows leave but those that are chosen, ascending; return which rows are left."""
    is_left = torch.ones_like(survivors.ids, dtype=torch.bool)
    is_left[survivors.visual] = False
    is_left[chosen] = True
    kept = _true_places(is_left, len(is_left) - len(survivors.visual) + len(chosen))
    survivors.ids = survivors.ids[kept]
    survivors.visual = (is_left.cumsum(0) - 1)[chosen]
    return kept


def put_before(values: Tensor, num_behind: int, more: Tensor) -> Tensor:
    """Return values [N] with more of them [M] before so many of the last, [N + M]."""
    place = len(values) - num_behind
    return torch.cat([values[:place], more, values[place:]])


def _true_places(mask: Tensor, count: int) -> Tensor:
    """Return where a mask is true, ascending; `count` is how often, so that nobody must wait."""
    return (~mask).to(torch.int8).sort(stable=True).indices[:count]
