"""Sequences -> Batch: the rows of one forward, and who does what at each layer."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.rows import HostLayerRows, distinct_layers
from skipserve.engine.sequence import Sequence
from skipserve.model.batch import Batch, Every, LayerRows, Span

Index = NDArray[np.int64]


def build_batch(
    sequences: list[Sequence],
    *,
    image_token_id: int,
    visual_features: Tensor | None,
    device: torch.device,
) -> Batch:
    """Make one forward of all pending rows of some sequences, whose plans may differ.

    All indexes are computed on the host and go to the device in one copy.

    Args:
        sequences: each with at least one pending row.
        image_token_id: marks the prompt rows that show an image.
        visual_features: projected features of these rows, [N, D], in the order of the sequences.
        device: where the forward runs.
    """
    spans = _spans(sequences)
    layers, places = _host_layers(sequences)
    rows = (
        _token_ids(sequences),
        _positions(sequences),
        _slots(sequences),
        _visual_rows(sequences, spans, image_token_id),
        np.array([span.stop - 1 for span in spans]),
    )
    tensors = _to_device([*rows, *(index for layer in layers for index in _indexes(layer))], device)
    token_ids, positions, slots, visual_rows, logit_rows = (next(tensors) for _ in rows)
    layer_rows = [_layer_rows(layer, tensors) for layer in layers]
    return Batch(
        token_ids=token_ids,
        positions=positions,
        slots=slots,
        visual_rows=visual_rows,
        visual_features=visual_features,
        spans=spans,
        layers=tuple(layer_rows[place] for place in places),
        logit_rows=logit_rows,
    )


def _spans(sequences: list[Sequence]) -> tuple[Span, ...]:
    spans = []
    start = 0
    for sequence in sequences:
        stop = start + sequence.num_tokens - sequence.num_computed
        spans.append(Span(start, stop, sequence.num_computed, sequence.first_slot))
        start = stop
    return tuple(spans)


def _token_ids(sequences: list[Sequence]) -> Index:
    return np.concatenate([np.array(s.pending_ids, dtype=np.int64) for s in sequences])


def _positions(sequences: list[Sequence]) -> Index:
    return np.concatenate([np.arange(s.num_computed, s.num_tokens) for s in sequences])


def _slots(sequences: list[Sequence]) -> Index:
    return np.concatenate(
        [np.arange(s.num_computed, s.num_tokens) + s.first_slot for s in sequences]
    )


def _visual_rows(sequences: list[Sequence], spans: tuple[Span, ...], image_token_id: int) -> Index:
    """Return the rows that show an image: a generated image token does not."""
    return np.concatenate(
        [
            span.start + np.flatnonzero(np.array(s.pending_prompt_ids) == image_token_id)
            for s, span in zip(sequences, spans, strict=True)
        ]
    )


def _host_layers(sequences: list[Sequence]) -> tuple[list[HostLayerRows], list[int]]:
    """Return the distinct layers and the place of each layer among them.

    A column of work is one token class of one sequence; only those that occur are looked at.
    """
    work = np.concatenate([s.work for s in sequences])
    num_classes = len(sequences[0].work)
    columns = np.concatenate(
        [np.array(s.pending_classes) + i * num_classes for i, s in enumerate(sequences)]
    )
    occurring, columns = np.unique(columns, return_inverse=True)
    return distinct_layers(work[occurring], columns)


def _indexes(layer: HostLayerRows) -> Iterator[Index]:
    return (rows for rows in layer.values() if not isinstance(rows, Every))


def _to_device(arrays: list[Index], device: torch.device) -> Iterator[Tensor]:
    host = torch.from_numpy(np.concatenate(arrays))
    return iter(torch.split(host.to(device), [len(array) for array in arrays]))


def _layer_rows(layer: HostLayerRows, indexes: Iterator[Tensor]) -> LayerRows:
    """Put the indexes of one layer, the next ones that come, into their places."""
    return LayerRows(
        **{name: rows if isinstance(rows, Every) else next(indexes) for name, rows in layer.items()}
    )
