"""Attention on any device: the keys of each sequence are copied together first."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve_kernels.plain.attention.layout import Index, Queries, Runs


@dataclass(frozen=True, slots=True)
class Span:
    """The queries of one sequence.

    Attributes:
        start: index of the first of them.
        stop: index after the last.
        slots: where the keys up to the last query's own live, [N] int64.
        mask: [Q, N] bool, True where a query sees a key; None where it is the only one.
    """

    start: int
    stop: int
    slots: Tensor
    mask: Tensor | None


def prepare(queries: Queries, runs: Runs, device: torch.device) -> tuple[Span, ...]:
    """Say what the queries of each sequence see."""
    sequences = queries.counts.nonzero()[0].tolist()
    seen = runs.cut(queries.num_cached + queries.num_new)
    return tuple(_span(queries, seen, sequence, device) for sequence in sequences)


def _span(queries: Queries, runs: Runs, sequence: int, device: torch.device) -> Span:
    start, stop = queries.starts[sequence : sequence + 2].tolist()
    slots = _slots(runs, sequence)
    mask = None
    if stop - start > 1:
        positions = queries.offsets[start:stop] + queries.num_cached[sequence]
        mask = torch.from_numpy(positions[:, None] >= np.arange(len(slots))).to(device)
    return Span(start, stop, torch.from_numpy(slots).to(device), mask)


def _slots(runs: Runs, sequence: int) -> Index:
    """Return where the positions of a sequence live, in order."""
    own = runs.sequences == sequence
    first, lengths = runs.slots[own], (runs.stops - runs.starts)[own]
    return np.concatenate([np.arange(s, s + n) for s, n in zip(first, lengths, strict=True)])


def attention(query: Tensor, keys: Tensor, values: Tensor, spans: tuple[Span, ...]) -> Tensor:
    """Attend to stored keys [1, K, S, C] for queries [T, H, C]; returns [T, H, C]."""
    return torch.cat([_attend(query[s.start : s.stop], keys, values, s) for s in spans])


def _attend(query: Tensor, keys: Tensor, values: Tensor, span: Span) -> Tensor:
    mixed = F.scaled_dot_product_attention(
        query.transpose(0, 1).unsqueeze(0),
        keys.index_select(2, span.slots),
        values.index_select(2, span.slots),
        attn_mask=span.mask,
        enable_gqa=query.shape[1] != keys.shape[1],
    )
    return mixed[0].transpose(0, 1)
