"""The rows of one forward, as the model sees them: of any number of sequences and plans.

A row is one token of one sequence. T is the number of rows.
"""

from dataclasses import dataclass
from enum import Enum

from torch import Tensor


class Every(Enum):
    """A row set that needs no index."""

    ALL = "all"
    NONE = "none"


# Which rows of a batch do something: all, none, or the ascending indexes [N] int64.
RowSet = Every | Tensor


def take(x: Tensor, rows: RowSet) -> Tensor:
    """Return the rows of x [T, ...] that are in a set, in order."""
    if rows is Every.ALL:
        return x
    return x[:0] if rows is Every.NONE else x.index_select(0, rows)


def put(x: Tensor, rows: RowSet, values: Tensor) -> Tensor:
    """Return x [T, ...] with the rows of a set replaced; x itself stays as it is."""
    if rows is Every.ALL:
        return values
    return x if rows is Every.NONE else x.index_copy(0, rows, values)


@dataclass(frozen=True)
class LayerRows:
    """Which rows do what in one block.

    Attributes:
        attention: run query, attention and output projection.
        kv: project and store keys and values; holds every row of `attention`.
        ffn: run the FFN.
        parallel: of those, the ones whose FFN reads the block's input through its own norm.
        parallel_shared: of those, the ones whose FFN reads it through the attention's norm.
        pair_first: rows that remember the block's input for the next block.
        pair_second: rows that run on the remembered input and take the mean of both blocks.
    """

    attention: RowSet = Every.ALL
    kv: RowSet = Every.ALL
    ffn: RowSet = Every.ALL
    parallel: RowSet = Every.NONE
    parallel_shared: RowSet = Every.NONE
    pair_first: RowSet = Every.NONE
    pair_second: RowSet = Every.NONE

    @property
    def is_idle(self) -> bool:
        """Whether no row needs the block, so that it is not launched at all."""
        return self.kv is Every.NONE and self.ffn is Every.NONE


@dataclass(frozen=True)
class Span:
    """The rows of one sequence in a batch and where its K/V live.

    Attributes:
        start: index of its first row.
        stop: index after its last row.
        num_cached: keys that precede its first row.
        first_slot: the slot of its position 0; position p lives in slot first_slot + p.
    """

    start: int
    stop: int
    num_cached: int
    first_slot: int


@dataclass(frozen=True)
class Batch:
    """One forward.

    Attributes:
        token_ids: [T] int64; the id at a visual row is not looked up.
        positions: [T] int64, counted from 0 in each sequence.
        slots: [T] int64, where each row's K/V go.
        visual_rows: [N] int64, the rows that take a row of `visual_features`, in order.
        visual_features: projected image features, [N, D]; None without visual rows.
        spans: the rows by sequence, in order.
        layers: the rows by layer; layers that do the same share one object.
        logit_rows: [B] int64, the rows whose logits are wanted.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    visual_rows: Tensor
    visual_features: Tensor | None
    spans: tuple[Span, ...]
    layers: tuple[LayerRows, ...]
    logit_rows: Tensor
