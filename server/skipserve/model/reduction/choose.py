"""Which rows of pictures are left, and what becomes of the others.

All pictures of a batch are reduced at once; ties go to the row that comes first, and what is left
keeps its order. Rankings are made in float32. Shapes: N pictures, P patches or rows, R of them
left, E or D the width of a row.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve.model.reduction.seen import Seen
from skipserve.model.seeded_rows import random_rows
from skipserve_policies.reduction import Reduction
from skipserve_policies.schema import Reducer

# Vispruner takes so many rows away in a round, at most.
_MOST_IN_ROUND = 8


def reduce_features(seen: Seen, features: Tensor, reductions: Sequence[Reduction]) -> Tensor:
    """Return what is left of the features that the projector would see, [N, R, E].

    Args:
        seen: the tower's view of the pictures.
        features: what the projector would see, [N, P, E].
        reductions: of each picture; they differ in their seeds alone.
    """
    first = reductions[0]
    match first.method:
        case Reducer.VISIONZIP:
            return _visionzip(seen, first.num_rows - first.num_merged, first.num_merged)
        case Reducer.VISPRUNER:
            return _take(features, vispruner_rows(seen, first.num_rows, first.num_important))
        case Reducer.DOWNSAMPLE:
            return _downsample(features, first.grid)
        case _:
            return reduce_rows(features, reductions)


def reduce_rows(rows: Tensor, reductions: Sequence[Reduction]) -> Tensor:
    """Return what is left of rows [N, P, D], whatever they are of: [N, R, D]."""
    first = reductions[0]
    if first.method is Reducer.DIVPRUNE:
        return _take(rows, divprune_rows(rows, first.num_rows))
    chosen = [random_rows(it.seed, rows.shape[1], it.num_rows) for it in reductions]
    return _take(rows, torch.from_numpy(np.stack(chosen)).to(rows.device))


def _take(rows: Tensor, chosen: Tensor) -> Tensor:
    """Return the rows [N, P, D] that are chosen, [N, R], of each picture."""
    return rows.take_along_dim(chosen[..., None], dim=1)


def _best(scores: Tensor) -> Tensor:
    """Return the places of scores [N, M] from the highest to the lowest."""
    return scores.sort(dim=-1, descending=True, stable=True).indices


def _others(chosen: Tensor, num_rows: int) -> Tensor:
    """Return the rows that are not chosen, [N, P - R], ascending."""
    is_chosen = torch.zeros(len(chosen), num_rows, dtype=torch.int8, device=chosen.device)
    is_chosen.scatter_(1, chosen, 1)
    return is_chosen.sort(dim=1, stable=True).indices[:, : num_rows - chosen.shape[1]]


def _visionzip(seen: Seen, num_dominant: int, num_merged: int) -> Tensor:
    """Keep the class token and the patches that it attends to most, merge the others.

    Every so many-th of the others is a target, which the rest of them join, each the one whose key
    is most like its own; a target becomes its features plus the mean of those that joined. Order:
    class token, dominant ones, targets. Source: arXiv 2412.04467, section 3.
    """
    dominant = _best(seen.class_attention())[:, : num_dominant - 1].sort(dim=1).values
    kept = torch.cat([seen.class_states, _take(seen.patches, dominant)], dim=1)
    if not num_merged:
        return kept
    others = _others(dominant, seen.patches.shape[1])
    is_target = torch.zeros(others.shape[1], dtype=torch.bool, device=others.device)
    is_target[:: max(1, others.shape[1] // num_merged)] = True
    is_target &= is_target.cumsum(0) <= num_merged
    targets, joining = others[:, is_target], others[:, ~is_target]
    keys = F.normalize(seen.patch_keys(), dim=-1)
    joined = (_take(keys, joining) @ _take(keys, targets).transpose(1, 2)).argmax(dim=-1)
    means = _means(_take(seen.patches, joining), joined, num_merged)
    return torch.cat([kept, _take(seen.patches, targets) + means], dim=1)


def _means(rows: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Return the mean of each group's rows [N, M, E], zeros where it has none: [N, G, E]."""
    sums = rows.new_zeros(len(rows), num_groups, rows.shape[2], dtype=torch.float32)
    sums.scatter_add_(1, groups[..., None].expand_as(rows), rows.float())
    counts = torch.zeros(groups.shape[0], num_groups, device=rows.device)
    counts.scatter_add_(1, groups, torch.ones_like(groups, dtype=counts.dtype))
    return (sums / counts.clamp(min=1)[..., None]).to(rows.dtype)


def vispruner_rows(seen: Seen, num_rows: int, num_important: int) -> Tensor:
    """Choose patches that the class token attends to, then such as are unlike; [N, R], ascending.

    The rest, by falling attention, is split by even and odd places; the even ones that are most
    like an odd one go, at most 8 of them; the other even ones, by falling likeness, and the odd
    ones are the next rest. Source: arXiv 2412.01818, algorithm 1.
    """
    order = _best(seen.class_attention())
    important, rest = order[:, :num_important], order[:, num_important:]
    num_diverse = num_rows - num_important
    if not num_diverse:
        return important.sort(dim=1).values
    units = F.normalize(seen.patches.float(), dim=-1)
    likeness = units @ units.transpose(1, 2)
    while rest.shape[1] > num_diverse:
        even, odd = rest[:, ::2], rest[:, 1::2]
        num_gone = min(_MOST_IN_ROUND, rest.shape[1] - num_diverse, even.shape[1])
        nearest = _likeness(likeness, even, odd).amax(dim=2)
        rest = torch.cat([even.gather(1, _best(nearest))[:, num_gone:], odd], dim=1)
    return torch.cat([important, rest], dim=1).sort(dim=1).values


def _likeness(likeness: Tensor, some: Tensor, others: Tensor) -> Tensor:
    """Return how like rows are to others, [N, A, B], of all to all [N, P, P]."""
    return _take(likeness, some).take_along_dim(others[:, None], dim=2)


def divprune_rows(rows: Tensor, num_rows: int) -> Tensor:
    """Choose rows [N, P, D] that are far from each other, greedily; [N, R], ascending.

    The first is the one whose nearest neighbour is farthest; the next, always, the one that is
    farthest from those that are chosen, by cosine. Source: arXiv 2503.02175, equation 5.
    """
    units = F.normalize(rows.float(), dim=-1)
    distance = 1 - units @ units.transpose(1, 2)
    apart = distance.clone()
    apart.diagonal(dim1=1, dim2=2).fill_(math.inf)
    newest = apart.amin(dim=2).argmax(dim=1, keepdim=True)
    chosen, nearest = [newest], torch.full_like(distance[:, 0], math.inf)
    for _ in range(num_rows - 1):
        nearest = torch.minimum(nearest, _take(distance, newest).squeeze(1))
        nearest.scatter_(1, newest, -math.inf)
        newest = nearest.argmax(dim=1, keepdim=True)
        chosen.append(newest)
    return torch.cat(chosen, dim=1).sort(dim=1).values


def _downsample(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average the grid of patches, [N, P, E], to a coarser one, [N, height * width, E]."""
    side = math.isqrt(features.shape[1])
    planes = features.transpose(1, 2).reshape(len(features), -1, side, side)
    return F.adaptive_avg_pool2d(planes, grid).flatten(2).transpose(1, 2)
