"""Step -> Batch: the rows of one forward, and who does what at each layer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.plans import PlanTable
from skipserve.engine.rows import HostRowSet
from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve.engine.tables import UNREAD, SlotTables
from skipserve.model.batch import Batch, Every, Indexes, KvGroup, LayerRows, RowSet
from skipserve.model.transfer import to_device

Index = NDArray[np.int64]


@dataclass(frozen=True)
class StepRows:
    """The T rows of a step of B sequences, on the host.

    Attributes:
        row_starts: the first row of each sequence, and T, [B + 1].
        sequence_slots: [B].
        row_slots: the slot of each row's sequence, [T].
        positions: [T].
        token_ids: [T]; UNREAD where only the device knows the token.
        kv_slots: where keys and values go, [T].
        page_tables: [B, W].
        columns: of the table of plans, [T].
    """

    row_starts: Index
    sequence_slots: Index
    row_slots: Index
    positions: Index
    token_ids: Index
    kv_slots: Index
    page_tables: Index
    columns: Index

    @classmethod
    def of(cls, step: Step, tables: SlotTables) -> "StepRows":
        """Gather the rows of a step from what the sequences hold."""
        slots = np.array([chunk.sequence.slot for chunk in step.chunks])
        starts = np.array([chunk.start for chunk in step.chunks])
        stops = np.array([chunk.stop for chunk in step.chunks])
        counts = stops - starts
        row_starts = np.concatenate([[0], counts.cumsum()])
        row_slots = slots.repeat(counts)
        positions = np.arange(step.num_rows) + (starts - row_starts[:-1]).repeat(counts)
        page_size = tables.page_size
        pages = tables.pages[row_slots, positions // page_size]
        return cls(
            row_starts=row_starts,
            sequence_slots=slots,
            row_slots=row_slots,
            positions=positions,
            token_ids=tables.token_ids[row_slots, positions],
            kv_slots=pages * page_size + positions % page_size,
            page_tables=tables.pages[slots, : -(-int(stops.max()) // page_size)],
            columns=tables.columns[row_slots, positions],
        )


@dataclass(frozen=True)
class Inputs:
    """A forward, and where its tokens go.

    Attributes:
        batch: the forward.
        sampled_slots: the slots of the sequences that sample, on the device, [R] int64.
    """

    batch: Batch
    sampled_slots: Tensor


def build_batch(
    step: Step,
    rows: StepRows,
    plans: PlanTable,
    visual_features: Tensor | None,
    last_tokens: Tensor,
) -> Inputs:
    """Make one forward of all rows of a step, whatever their plans.

    What it reads is computed on the host and goes to the device in one copy.

    Args:
        step: which rows.
        rows: the same, gathered.
        plans: what their columns mean.
        visual_features: projected features of the rows that show an image, [N, D], in order.
        last_tokens: the last token of each slot, [slots], where the forward runs: it may have been
            sampled there and not be read yet.
    """
    host = plans.rows(rows.columns)
    unread = np.flatnonzero(rows.token_ids == UNREAD)
    samples = np.array([chunk.samples for chunk in step.chunks])
    arrays = [
        rows.token_ids,
        rows.positions,
        rows.kv_slots,
        rows.page_tables,
        _visual_rows(step, rows.row_starts),
        rows.row_starts[1:][samples] - 1,
        rows.sequence_slots[samples],
        unread,
        rows.row_slots[unread],
        *host.indexes,
    ]
    (
        ids,
        positions,
        kv_slots,
        tables,
        visual_rows,
        logit_rows,
        sampled_slots,
        unread_rows,
        unread_slots,
        *sets,
    ) = to_device(arrays, last_tokens.device)
    if len(unread):
        ids = ids.index_copy(0, unread_rows, last_tokens.index_select(0, unread_slots))
    row_sets = list(map(Indexes, host.indexes, sets))
    layers = [_layer_rows(layer, row_sets) for layer in host.layers]
    group = KvGroup(Indexes(rows.page_tables, tables), kv_slots)
    batch = Batch(
        token_ids=ids,
        positions=positions,
        row_starts=tuple(rows.row_starts.tolist()),
        num_cached=tuple(chunk.start for chunk in step.chunks),
        visual_rows=visual_rows,
        visual_features=visual_features,
        layers=tuple(layers[place] for place in host.places),
        kv_group=(group,) * len(host.places),
        logit_rows=logit_rows,
    )
    return Inputs(batch, sampled_slots)


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


def _layer_rows(layer: dict[str, HostRowSet], sets: list[Indexes]) -> LayerRows:
    """Put row sets into their places; equal ones are one object."""

    def row_set(rows: HostRowSet) -> RowSet:
        return rows if isinstance(rows, Every) else sets[rows]

    return LayerRows(**{name: row_set(rows) for name, rows in layer.items()})
