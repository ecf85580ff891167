"""Hands rows over from one segment to the next.

Shapes: T rows of the segment before, U of the one behind, D hidden; N rows of a sequence.
"""

import torch
from torch import Tensor

from skipserve.model.layers import KVCache, Layers
from skipserve.model.narrowing import rank
from skipserve.model.narrowing.handover import Handover, Held, Ranking
from skipserve_policies.schema import Dropper


def asking_rows(handover: Handover | None, hidden: Tensor) -> Tensor | None:
    """Return some rows of the input [T, D] of a segment's last block: those that rank, [R, D]."""
    if handover is None or handover.asking is None:
        return None
    return hidden.index_select(0, handover.asking)


def hand_over(
    handover: Handover, hidden: Tensor, held: Held, layers: Layers, cache: KVCache
) -> Tensor:
    """Return the rows that go on, [U, D].

    Args:
        handover: which ones.
        hidden: the residual stream behind the segment before, [T, D].
        held: rows that the choices look at besides.
        layers: the blocks.
        cache: their keys and values.
    """
    for stop in handover.stops:
        waiting = stop.waiting
        waiting.pieces.append(hidden[slice(*stop.rows)].clone())
        if held.embedded is not None:
            waiting.embedded.append(held.embedded_of(stop.looks).clone())
        if held.asking is not None:
            waiting.asking.append(held.asking_of(stop.looks).clone())
    if handover.returning:
        pieces = [piece for waiting in handover.returning for piece in waiting.pieces]
        hidden = torch.cat([hidden, *pieces])
    merged = [_rank(ranking, hidden, held, layers, cache) for ranking in handover.rankings]
    for waiting in handover.returning:
        waiting.clear()
    if any(map(len, merged)):
        hidden = torch.cat([hidden, *merged])
    return hidden.index_select(0, handover.entering)


def _rank(ranking: Ranking, hidden: Tensor, held: Held, layers: Layers, cache: KVCache) -> Tensor:
    """Choose rows, let them go on, and return what others are merged into, [M, D]."""
    if not ranking.narrowing.merges:
        chosen = _choose(ranking, hidden, held, layers, cache)
        _enter(ranking, chosen)
        ranking.chosen.copy_(ranking.survivors.ids[ranking.survivors.visual])
        return hidden[:0]
    survivors, leaving = ranking.survivors, ranking.leaving
    rows = hidden.index_select(0, ranking.source[survivors.visual - ranking.first])
    if not ranking.is_settled:
        scores = _scores_by_raters(ranking, held, layers, cache)
        ranking.chosen.copy_(rank.fates(scores, rows, leaving))
    chosen = survivors.visual[rank.staying(ranking.chosen, leaving.num_kept)]
    _enter(ranking, chosen)
    return rank.merged(rows, ranking.chosen, leaving.num_merged)


def _choose(ranking: Ranking, hidden: Tensor, held: Held, layers: Layers, cache: KVCache) -> Tensor:
    """Return the visual rows that stay, by their places in the segment before, ascending."""
    layer, survivors, first = ranking.layer, ranking.survivors, ranking.first
    visual, count, positions = survivors.visual, ranking.leaving.num_kept, _positions(ranking)
    match ranking.narrowing.method:
        case Dropper.FASTV:
            asking = held.asking_of(ranking.looks)
            seen = layer - 1, cache, asking, positions[-1:], ranking.slots
            return rank.most_looked_at(layers.attention_to_rows(*seen), visual, count)
        case Dropper.PYRAMIDDROP:
            rows = hidden.index_select(0, ranking.source)
            # In slots that are the sequence's own: the rows that go on store theirs there again.
            layers.store_keys(layer, cache, rows, positions[first:], ranking.slots[first:])
            seen = layer, cache, rows[-1:], positions[-1:], ranking.slots
            return rank.most_looked_at(layers.attention_to_rows(*seen), visual, count)
        case Dropper.DART:
            normed = layers.normed(hidden, ranking.source)
            keys = layers.stored_keys(layer - 1, cache, ranking.slots[first:])
            kept = rank.least_like_pivots(normed, keys, visual - first, ranking.num_behind, count)
            return kept + first
        case method:
            raise AssertionError(f"{method.value} ranks nothing")


def _positions(ranking: Ranking) -> Tensor:
    """Return what the rows of a sequence are turned by in the segment before, [N] int64."""
    ids = ranking.survivors.ids
    return torch.arange(len(ids), device=ids.device) if ranking.narrowing.renumbers else ids


def _scores_by_raters(ranking: Ranking, held: Held, layers: Layers, cache: KVCache) -> Tensor:
    """Return how much rows behind the images attend to each visual row, [V] float32."""
    layer, survivors, behind = ranking.layer - 1, ranking.survivors, ranking.num_behind
    if survivors.raters is None:
        embedded = torch.cat([*ranking.waiting.embedded, held.embedded_of(ranking.looks)])
        places = survivors.visual - survivors.visual[0]
        survivors.raters = rank.raters(embedded[places], embedded[-behind:])
    asking = torch.cat([*ranking.waiting.asking, held.asking_of(ranking.looks)])
    queries = layers.queries(layer, asking, _positions(ranking)[-behind:])
    keys = layers.stored_keys(layer, cache, ranking.slots)
    return rank.attention_of_raters(queries, keys, survivors.raters)[survivors.visual]


def _enter(ranking: Ranking, chosen: Tensor) -> None:
    """Let the rows that are left go on, merged ones behind the visual ones that stay."""
    survivors, first, count = ranking.survivors, ranking.first, ranking.leaving.num_merged
    place = survivors.ids[survivors.visual[:1]]
    kept = rank.leave(survivors, chosen)
    entering = ranking.source[kept[first:] - first]
    if count:
        numbers = torch.arange(count, device=chosen.device)
        entering = rank.put_before(entering, ranking.num_behind, ranking.merged_from + numbers)
        survivors.ids = rank.put_before(survivors.ids, ranking.num_behind, place.expand(count))
        last = len(kept) - ranking.num_behind
        survivors.visual = torch.cat([survivors.visual, last + numbers])
    ranking.entering.copy_(entering)
    for positions in ranking.positions:
        positions.copy_(survivors.ids[first:])
