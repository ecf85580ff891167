"""The reducers of visual rows, one image at a time in float64, written from their formulas.

Ties go to the lower index, what is left keeps its order. Shapes: N patches, E the width of a
feature.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """What is looked at of one image.

    Attributes:
        features: with the class token's row first, [1 + N, E].
        attention: of the class token to the patches, [N].
        keys: of the patches, their mean over the heads, [N, C].
    """

    features: Tensor
    attention: Tensor
    keys: Tensor


def vispruner(view: View, count: int, num_important: int) -> list[int]:
    """Return the patches that are left."""
    order = _falling(view.attention.tolist())
    kept, rest = set(order[:num_important]), order[num_important:]
    units = [x / x.norm() for x in view.features[1:].double()]
    while len(rest) > count - num_important:
        even, odd = rest[::2], rest[1::2]
        nearest = [max((float(units[a] @ units[b]) for b in odd), default=-math.inf) for a in even]
        excess = len(rest) - (count - num_important)
        by_nearest = [even[place] for place in _falling(nearest)]
        rest = by_nearest[min(8, excess, len(even)) :] + odd
    return sorted(kept | set(rest))


def visionzip(view: View, num_dominant: int, num_merged: int) -> tuple[Tensor, list[int]]:
    """Return the features that are left, [num_dominant + num_merged, E], and dominant patches."""
    features, keys = view.features.double(), view.keys.double()
    dominant = sorted(_falling(view.attention.tolist())[: num_dominant - 1])
    others = [patch for patch in range(len(keys)) if patch not in dominant]
    rows = [features[0], *(features[1 + patch] for patch in dominant)]
    if num_merged:
        targets = others[:: max(1, len(others) // num_merged)][:num_merged]
        joined: dict[int, list[int]] = {target: [] for target in targets}
        for patch in others:
            if patch not in joined:
                likeness = [_cosine(keys[patch], keys[target]) for target in targets]
                joined[targets[_falling(likeness)[0]]].append(patch)
        for target, patches in joined.items():
            mean = features[[1 + patch for patch in patches]].mean(dim=0) if patches else 0
            rows.append(features[1 + target] + mean)
    return torch.stack(rows), dominant


def divprune(rows: Tensor, count: int) -> list[int]:
    """Return the rows [N, D] that are left."""
    places = range(len(rows))
    units = [x / x.norm() for x in rows.double()]
    distance = [[1 - float(units[a] @ units[b]) for b in places] for a in places]
    nearest = [min(distance[a][b] for b in places if b != a) for a in places]
    chosen = [_falling(nearest)[0]]
    while len(chosen) < count:
        left = [place for place in places if place not in chosen]
        apart = [min(distance[place][other] for other in chosen) for place in left]
        chosen.append(left[_falling(apart)[0]])
    return sorted(chosen)


def downsample(features: Tensor, height: int, width: int) -> Tensor:
    """Return the means of the patches that each cell of a coarser grid overlaps."""
    side = math.isqrt(len(features))
    grid = features.double().view(side, side, -1)

    def cut(number: int, size: int) -> slice:
        return slice(number * side // size, -(-(number + 1) * side // size))

    return torch.stack(
        [
            grid[cut(row, height), cut(column, width)].flatten(0, 1).mean(dim=0)
            for row in range(height)
            for column in range(width)
        ]
    )


def _falling(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def _cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b) / (a.norm() * b.norm()))
