"""Step -> Batch: the rows of one forward, and who does what at each layer."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.rows import HostRowSet, PlanTable
from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve.engine.tables import UNREAD, SlotTables
from skipserve.model.batch import Batch, Every, KvGroup, LayerRows, RowSet

Index = NDArray[np.int64]


def build_batch(
    step: Step,
    tables: SlotTables,
    plans: PlanTable,
    visual_features: Tensor | None,
    last_tokens: Tensor,
) -> Batch:
    """Make one forward of all rows of a step, whatever their plans.

    All indexes are computed on the host and go to the device in one copy.

    Args:
        step: which rows.
        tables: what the sequences hold.
        plans: what the columns in the tables mean.
        visual_features: projected features of the rows that show an image, [N, D], in order.
        last_tokens: the last token of each slot, [slots], where the forward runs: it may have been
            sampled there and not be read yet.
    """
    slots = np.array([sequence.slot for sequence in step.sequences])
    starts, stops = np.array(step.starts), np.array(step.stops)
    counts = stops - starts
    row_starts = np.concatenate([[0], counts.cumsum()])
    row_slots = slots.repeat(counts)
    positions = np.arange(step.num_rows) + (starts - row_starts[:-1]).repeat(counts)
    page_size = tables.page_size
    pages = tables.pages[row_slots, positions // page_size]
    page_tables = tables.pages[slots, : -(-int(stops.max()) // page_size)]
    token_ids = tables.token_ids[row_slots, positions]
    host = plans.rows(tables.columns[row_slots, positions])
    arrays = [
        token_ids,
        positions,
        pages * page_size + positions % page_size,
        page_tables.ravel(),
        _visual_rows(step, row_starts),
        row_starts[1:][step.samples] - 1,
        *host.indexes,
    ]
    ids, on_positions, kv_slots, flat_tables, visual_rows, logit_rows, *sets = _to_device(
        arrays, last_tokens.device
    )
    layers = [_layer_rows(layer, sets) for layer in host.layers]
    group = KvGroup(flat_tables.view(page_tables.shape), kv_slots)
    return Batch(
        token_ids=_with_unread(ids, token_ids, row_slots, last_tokens),
        positions=on_positions,
        row_starts=tuple(row_starts.tolist()),
        num_cached=tuple(step.starts),
        visual_rows=visual_rows,
        visual_features=visual_features,
        layers=tuple(layers[place] for place in host.places),
        kv_group=(group,) * len(host.places),
        logit_rows=logit_rows,
    )


def _with_unread(ids: Tensor, known: Index, row_slots: Index, last_tokens: Tensor) -> Tensor:
    """Put in the tokens that only the device knows."""
    unread = np.flatnonzero(known == UNREAD)
    if not len(unread):
        return ids
    rows, slots = _to_device([unread, row_slots[unread]], ids.device)
    return ids.index_copy(0, rows, last_tokens.index_select(0, slots))


def visual_range(sequence: Sequence, start: int, stop: int) -> tuple[int, int]:
    """Return which of a sequence's visual rows lie in a range of positions, as a range."""
    first, last = np.searchsorted(sequence.visual_positions, (start, stop))
    return int(first), int(last)


def _visual_rows(step: Step, row_starts: Index) -> Index:
    """Return the rows that show an image: a generated image token does not."""
    rows = [np.zeros(0, dtype=np.int64)]
    for place, (sequence, start) in enumerate(zip(step.sequences, step.starts, strict=True)):
        if start < sequence.visual_stop:
            first, last = visual_range(sequence, start, step.stops[place])
            rows.append(sequence.visual_positions[first:last] - start + row_starts[place])
    return np.concatenate(rows)


def _to_device(arrays: list[Index], device: torch.device) -> Iterator[Tensor]:
    host = torch.from_numpy(np.concatenate(arrays))
    return iter(torch.split(host.to(device), [len(array) for array in arrays]))


def _layer_rows(layer: dict[str, HostRowSet], sets: list[Tensor]) -> LayerRows:
    """Put row sets into their places; equal ones are one object."""

    def row_set(rows: HostRowSet) -> RowSet:
        return rows if isinstance(rows, Every) else sets[rows]

    return LayerRows(**{name: row_set(rows) for name, rows in layer.items()})
