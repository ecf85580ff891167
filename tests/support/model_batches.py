"""Builds batches by hand from plans and token classes, and runs sequences through a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.model.batch import Batch, KvGroup, Segment
from skipserve.model.layers import KVCache
from skipserve.model.llava import Llava
from skipserve.model.work import Indexes, RowWork, Work
from skipserve_policies.plan import Ffn, Pair, Plan, TokenClass

PAGE_SIZE = 4
CPU = torch.device("cpu")

# Stands in a page table behind a sequence's last page.
NO_PAGE = -1


@dataclass(frozen=True)
class Rows:
    """All rows of one sequence: prompt and what was generated.

    Attributes:
        ids: [T] int64.
        classes: of each row.
        features: [N, D], one for each row of `is_visual`, in order.
        is_visual: [T] bool.
    """

    ids: Tensor
    classes: tuple[TokenClass, ...]
    features: Tensor
    is_visual: Tensor

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a sequence under a plan, whose K/V live in some pages."""

    rows: Rows
    plan: Plan
    start: int
    stop: int
    pages: Sequence[int]

    @property
    def slots(self) -> Tensor:
        """Where the K/V of the rows go, [stop - start] int64."""
        positions = torch.arange(self.start, self.stop)
        return torch.tensor(self.pages)[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE

    def rows_do(self, layer: int) -> list[Work]:
        """Say of each row what it does in a layer."""
        return [row_does(self.plan, layer, c) for c in self.rows.classes[self.start : self.stop]]


def row_does(plan: Plan, layer: int, token_class: TokenClass) -> Work:
    """Read off the plan what a row does in a block."""
    cell = plan.cell(layer, token_class)
    does = {
        Work.ATTENTION: cell.attention,
        Work.KV: plan.kv[token_class][layer],
        Work.FFN: cell.ffn is not Ffn.NONE,
        Work.PARALLEL: cell.ffn is Ffn.PARALLEL,
        Work.PARALLEL_SHARED: cell.ffn is Ffn.PARALLEL_SHARED,
        Work.PAIR_FIRST: cell.pair is Pair.FIRST,
        Work.PAIR_SECOND: cell.pair is Pair.SECOND,
        Work.SERIAL: cell.ffn is Ffn.SERIAL,
    }
    return Work(sum(bit for bit, is_done in does.items() if is_done))


def build_batch(
    pieces: Sequence[Piece], logit_rows: Sequence[int], device: torch.device = CPU
) -> Batch:
    """Put pieces of sequences into one batch on a device; `logit_rows` counts in the batch."""
    work = [
        [bits for piece in pieces for bits in piece.rows_do(layer)]
        for layer in range(pieces[0].plan.num_layers)
    ]
    positions = torch.cat([torch.arange(p.start, p.stop) for p in pieces])
    is_visual = torch.cat([p.rows.is_visual[p.start : p.stop] for p in pieces])
    features = torch.cat([_features(p) for p in pieces])
    segment = Segment.whole(
        RowWork.of(np.array(work, dtype=np.uint8), device),
        row_starts=np.array([0, *accumulate(p.stop - p.start for p in pieces)]),
        group=_kv_group(pieces, positions.to(device)),
    )
    return Batch(
        token_ids=torch.cat([p.rows.ids[p.start : p.stop] for p in pieces]).to(device),
        visual_rows=is_visual.nonzero()[:, 0].to(device),
        visual_features=features.to(device) if len(features) else None,
        segments=(segment,),
        logit_rows=torch.tensor(logit_rows, dtype=torch.int64, device=device),
    )


def _indexes(numbers: NDArray[np.int64], device: torch.device) -> Indexes:
    return Indexes(numbers, torch.from_numpy(numbers).to(device))


def _kv_group(pieces: Sequence[Piece], positions: Tensor) -> KvGroup:
    width = max(len(piece.pages) for piece in pieces)
    tables = [[*p.pages, *[NO_PAGE] * (width - len(p.pages))] for p in pieces]
    device = positions.device
    slots = torch.cat([p.slots for p in pieces]).to(device)
    num_cached = np.array([piece.start for piece in pieces])
    return KvGroup(_indexes(np.array(tables), device), slots, positions, positions, num_cached)


def _features(piece: Piece) -> Tensor:
    before = int(piece.rows.is_visual[: piece.start].sum())
    here = int(piece.rows.is_visual[piece.start : piece.stop].sum())
    return piece.rows.features[before : before + here]


def scattered_pages(*num_positions: int) -> list[list[int]]:
    """Return pages for sequences of so many positions: in no order, with gaps, few side by side."""
    counts = [-(-number // PAGE_SIZE) for number in num_positions]
    generator = torch.Generator().manual_seed(sum(counts))
    shuffled = torch.randperm(sum(counts), generator=generator) * 3 // 2
    return [pages.tolist() for pages in torch.split(shuffled, counts)]


def poisoned_cache(model: Llava, *num_positions: int) -> KVCache:
    """Return room for the `scattered_pages`; a slot that was never written shows as NaN."""
    num_pages = 3 * sum(-(-number // PAGE_SIZE) for number in num_positions) // 2 + 1
    cache = model.new_cache(num_pages, PAGE_SIZE)
    for layer in cache.layers:
        layer.keys.fill_(torch.nan)
        layer.values.fill_(torch.nan)
    return cache


def forward(
    model: Llava, pieces: Sequence[Piece], logit_rows: Sequence[int], cache: KVCache
) -> Tensor:
    """Run one batch on the model's device; return the logits on the host."""
    return model.forward(build_batch(pieces, logit_rows, model.device), cache).cpu()


def run_whole(model: Llava, rows: Rows, plan: Plan, logit_rows: Sequence[int]) -> Tensor:
    """Return the logits of some rows, all rows computed in one forward."""
    (pages,) = scattered_pages(len(rows))
    piece = Piece(rows, plan, 0, len(rows), pages)
    return forward(model, [piece], logit_rows, poisoned_cache(model, len(rows)))


def run_in_pieces(model: Llava, rows: Rows, plan: Plan, cuts: Sequence[int]) -> Tensor:
    """Return the logits of the last row before each cut and of the last row of all."""
    cache = poisoned_cache(model, len(rows))
    (pages,) = scattered_pages(len(rows))
    bounds = [0, *cuts, len(rows)]
    logits = []
    for start, stop in pairwise(bounds):
        piece = Piece(rows, plan, start, stop, pages)
        logits.append(forward(model, [piece], [stop - start - 1], cache))
    return torch.cat(logits)
