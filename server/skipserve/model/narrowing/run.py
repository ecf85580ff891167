"""Hands rows over from one segment to the next.

Shapes: T rows of the segment before, U of the one behind, D hidden; N rows of a sequence.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from skipserve.model.layers import KVCache, Layers
from skipserve.model.narrowing import rank
from skipserve.model.narrowing.handover import Handover, Ranking
from skipserve_policies.schema import Dropper


def last_rows(handover: Handover | None, hidden: Tensor) -> Tensor | None:
    """Return some rows of the input [T, D] of a segment's last block: those that rank, [R, D]."""
    if handover is None or handover.last_rows is None:
        return None
    return hidden.index_select(0, handover.last_rows)


def hand_over(
    handover: Handover, hidden: Tensor, seen: Tensor | None, layers: Layers, cache: KVCache
) -> Tensor:
    """Return the rows that go on, [U, D].

    Args:
        handover: which ones.
        hidden: the residual stream behind the segment before, [T, D].
        seen: what `last_rows` gave.
        layers: the blocks.
        cache: their keys and values.
    """
    for stop in handover.stops:
        stop.waiting.pieces.append(hidden[slice(*stop.rows)].clone())
    if handover.returning:
        pieces = [piece for waiting in handover.returning for piece in waiting.pieces]
        hidden = torch.cat([hidden, *pieces])
        for waiting in handover.returning:
            waiting.pieces.clear()
    asking = iter(()) if seen is None else iter(seen.unsqueeze(1))
    for ranking in handover.rankings:
        chosen = _choose(ranking, hidden, asking, layers, cache)
        _enter(ranking, chosen)
    return hidden.index_select(0, handover.entering)


def _choose(
    ranking: Ranking, hidden: Tensor, asking: Iterator[Tensor], layers: Layers, cache: KVCache
) -> Tensor:
    """Return the visual rows that stay, by their places in the segment before, ascending."""
    layer, survivors, first = ranking.layer, ranking.survivors, ranking.first
    positions, visual, count = survivors.ids, survivors.visual, ranking.num_visual
    if ranking.narrowing.renumbers:
        positions = torch.arange(len(positions), device=positions.device)
    match ranking.narrowing.method:
        case Dropper.FASTV:
            query = layers.queries(layer - 1, next(asking), positions[-1:])
            keys = layers.stored_keys(layer - 1, cache, ranking.slots)
            return rank.most_looked_at(rank.attention_to_rows(query[0], keys), visual, count)
        case Dropper.PYRAMIDDROP:
            rows = hidden.index_select(0, ranking.source)
            query = layers.queries(layer, rows[-1:], positions[-1:])
            old = layers.stored_keys(layer, cache, ranking.slots[:first])
            keys = torch.cat([old, layers.keys(layer, rows, positions[first:])])
            return rank.most_looked_at(rank.attention_to_rows(query[0], keys), visual, count)
        case Dropper.DART:
            normed = layers.normed(hidden, ranking.source)
            keys = layers.stored_keys(layer - 1, cache, ranking.slots[first:])
            kept = rank.least_like_pivots(normed, keys, visual - first, ranking.num_behind, count)
            return kept + first
        case method:
            raise AssertionError(f"{method.value} ranks nothing")


def _enter(ranking: Ranking, chosen: Tensor) -> None:
    """Let the rows that are left go on, and say where they stand."""
    survivors, first = ranking.survivors, ranking.first
    kept = rank.leave(survivors, chosen)
    ranking.entering.copy_(ranking.source[kept[first:] - first])
    for positions in ranking.positions:
        positions.copy_(survivors.ids[first:])
    ranking.chosen.copy_(survivors.ids[survivors.visual])
