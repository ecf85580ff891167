"""Step -> Batch: the rows of one forward, and who does what at each layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skipserve.engine.plans import PlanTable
from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve.engine.stages import StageBuilder, has_drops
from skipserve.engine.tables import UNREAD, SeatTables
from skipserve.model.batch import Batch, KvGroup, Segment
from skipserve.model.scoring import Scoring
from skipserve.model.transfer import to_device
from skipserve.model.work import Index, Indexes, RowWork


@dataclass(frozen=True)
class StepRows:
    """The T rows of a step of B sequences, on the host.

    Attributes:
        row_starts: the first row of each sequence, and T, [B + 1].
        num_cached: how many positions of each sequence precede its first row, [B].
        page_tables: [B, W].
        columns: of the table of plans, [T].
        numbers: what the device is told of each row, [4, T]: token id (UNREAD where only the
            device knows it), position, K/V slot, and the seat of its sequence.
    """

    row_starts: Index
    num_cached: Index
    page_tables: Index
    columns: Index
    numbers: Index

    @classmethod
    def of(cls, step: Step, tables: SeatTables) -> "StepRows":
        """Gather the rows of a step from what the sequences hold."""
        seats = np.array([chunk.sequence.seat for chunk in step.chunks])
        starts = np.array([chunk.start for chunk in step.chunks])
        stops = np.array([chunk.stop for chunk in step.chunks])
        counts = stops - starts
        row_starts = np.concatenate([[0], counts.cumsum()])
        row_seats = seats.repeat(counts)
        positions = np.arange(step.num_rows) + (starts - row_starts[:-1]).repeat(counts)
        page_size = tables.page_size
        kv_slots = tables.pages[row_seats, positions // page_size] * page_size
        kv_slots += positions % page_size
        token_ids = tables.token_ids[row_seats, positions]
        return cls(
            row_starts=row_starts,
            num_cached=starts,
            page_tables=tables.pages[seats, : -(-int(stops.max()) // page_size)],
            columns=tables.columns[row_seats, positions],
            numbers=np.stack([token_ids, positions, kv_slots, row_seats]),
        )


@dataclass(frozen=True)
class Inputs:
    """A forward, and where its tokens go.

    Attributes:
        batch: the forward.
        sampled_seats: the seats of the sequences that sample, on the device, [R] int64.
        chosen: by sequence whose prompt is ranked, the visual rows that reach each later stage, as
            the forward finds them.
    """

    batch: Batch
    sampled_seats: Tensor
    chosen: Mapping[Sequence, list[Tensor]]


def build_batch(
    step: Step,
    rows: StepRows,
    seat_tables: SeatTables,
    plans: PlanTable,
    visual_features: Tensor | None,
    last_tokens: Tensor,
) -> Inputs:
    """Make one forward of all rows of a step, whatever their plans.

    What it reads is computed on the host and goes to the device in one copy.

    Args:
        step: which rows.
        rows: the same, gathered.
        seat_tables: what the sequences hold.
        plans: what their columns mean.
        visual_features: projected features of the rows that show an image, [N, D], in order.
        last_tokens: the last token of each seat, [seats], where the forward runs: it may have been
            sampled there and not be read yet.
    """
    pattern = plans.pattern(rows.columns)
    host_sets = pattern.indexes(rows.columns)
    samples = np.array([chunk.samples for chunk in step.chunks])
    host_logit_rows = rows.row_starts[1:][samples] - 1
    arrays = [rows.numbers, rows.page_tables, _visual_rows(step, rows.row_starts), host_logit_rows]
    sent = to_device([*arrays, *host_sets], last_tokens.device)
    numbers, tables, visual_rows, logit_rows, *sets = sent
    token_ids, positions, kv_slots, seats = numbers.unbind(0)
    if (rows.numbers[0] == UNREAD).any():
        token_ids = known_tokens(token_ids, seats, last_tokens)
    sampled_seats = seats.index_select(0, logit_rows)
    group = KvGroup(
        Indexes(rows.page_tables, tables), kv_slots, positions, positions, rows.num_cached
    )
    work = RowWork.select(pattern, list(map(Indexes, host_sets, sets)))
    segments: tuple[Segment, ...] = (Segment.whole(work, rows.row_starts, group),)
    chosen: Mapping[Sequence, list[Tensor]] = {}
    builder = None
    if has_drops(step):
        builder = StageBuilder(step, seat_tables, plans, last_tokens.device)
        segments, last_rows = builder.build()
        (logit_rows,), chosen = to_device([last_rows], last_tokens.device), builder.chosen
    scoring = None
    if step.num_scored:
        scored = builder.scored_rows() if builder else _scored_rows(step, rows.row_starts)
        scoring = _scoring(step, scored, last_tokens.device)
    batch = Batch(
        token_ids,
        visual_rows,
        visual_features,
        segments,
        logit_rows,
        embedded_rows=builder.embedded_rows if builder else None,
        scoring=scoring,
    )
    return Inputs(batch, sampled_seats, chosen)


def known_tokens(token_ids: Tensor, seats: Tensor, last_tokens: Tensor) -> Tensor:
    """Put the last tokens [seats] of the rows' sequences where the host knows none, [T]."""
    return torch.where(token_ids == UNREAD, last_tokens.index_select(0, seats), token_ids)


def visual_range(sequence: Sequence, start: int, stop: int) -> tuple[int, int]:
    """Return which of a sequence's visual rows lie in a range of positions, as a range."""
    first, last = np.searchsorted(sequence.visual_positions, (start, stop))
    return int(first), int(last)


def _visual_rows(step: Step, row_starts: Index) -> Index:
    """Return the rows that show an image: a generated image token does not."""
    rows = [np.zeros(0, dtype=np.int64)]
    for place, chunk in enumerate(step.chunks):
        sequence = chunk.sequence
        if chunk.start < sequence.visual_stop:
            first, last = visual_range(sequence, chunk.start, chunk.stop)
            rows.append(sequence.visual_positions[first:last] - chunk.start + row_starts[place])
    return np.concatenate(rows)


def _scored_rows(step: Step, row_starts: Index) -> Index:
    """Return the rows whose next token is scored, [S]."""
    return np.concatenate(
        [
            chunk.scored_positions - chunk.start + start
            for chunk, start in zip(step.chunks, row_starts, strict=False)
            if chunk.scored
        ]
    )


def _scoring(step: Step, rows: Index, device: torch.device) -> Scoring:
    """Return what scores the tokens behind some rows, which are those of the step in order."""
    asking = [(chunk, chunk.sequence.request) for chunk in step.chunks if chunk.scored]
    token_ids = np.concatenate(
        [request.prompt_array[chunk.scored_positions + 1] for chunk, request in asking]
    )
    num_top = max(request.num_prompt_logprobs or 0 for _, request in asking)
    sent_rows, sent_ids = to_device([rows, token_ids], device)
    return Scoring(sent_rows, sent_ids, num_top)
