"""The rows of one forward, as the model sees them: of any number of sequences and plans.

A row is one token of one sequence. T is the number of rows.
"""

from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Indexes:
    """Numbers that the host needs to plan a forward and the device to run it.

    Attributes:
        host: int64.
        device: the same, where the forward runs; on the CPU it shares its memory with `host`.
    """

    host: NDArray[np.int64]
    device: Tensor

    @classmethod
    def of(cls, numbers: NDArray[np.int64] | list[int]) -> Self:
        """Return numbers for a forward on the CPU."""
        host = np.asarray(numbers, dtype=np.int64)
        return cls(host, torch.from_numpy(host))


class Every(Enum):
    """A row set that needs no index."""

    ALL = "all"
    NONE = "none"


# Which rows of a batch do something: all, none, or the ascending indexes [N].
RowSet = Every | Indexes


def take(x: Tensor, rows: RowSet) -> Tensor:
    """Return the rows of x [T, ...] that are in a set, in order."""
    if rows is Every.ALL:
        return x
    return x[:0] if rows is Every.NONE else x.index_select(0, rows.device)


def put(x: Tensor, rows: RowSet, values: Tensor) -> Tensor:
    """Return x [T, ...] with the rows of a set replaced; x itself stays as it is."""
    if rows is Every.ALL:
        return values
    return x if rows is Every.NONE else x.index_copy(0, rows.device, values)


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


class Work(IntFlag):
    """What a row does in a block: the fields of LayerRows as bits, in the same order.

    SERIAL, which follows from the others, is an FFN that is not parallel.
    """

    ATTENTION = 1
    KV = 2
    FFN = 4
    PARALLEL = 8
    PARALLEL_SHARED = 16
    PAIR_FIRST = 32
    PAIR_SECOND = 64
    SERIAL = 128


@dataclass(frozen=True)
class KvGroup:
    """Where keys and values live, for layers that keep the same positions.

    Slot s of a layer is position s % page_size of page s // page_size.

    Attributes:
        tables: pages by sequence, in the order of their positions, [B, W]; what lies behind a
            sequence's last page is not looked at.
        slots: where each row's keys and values go, [T] int64; -1 for nowhere.
    """

    tables: Indexes
    slots: Tensor


@dataclass(frozen=True)
class Batch:
    """One forward of T rows of B sequences.

    Attributes:
        token_ids: [T] int64; the id at a visual row is not looked up.
        positions: [T] int64, counted from 0 in each sequence; -1 for a row that only fills a
            captured graph.
        row_starts: index of the first row of each sequence, and T: B + 1 in all.
        num_cached: how many positions of each sequence precede its first row.
        visual_rows: [N] int64, the rows that take a row of `visual_features`, in order.
        visual_features: projected image features, [N, D]; None without visual rows.
        layers: the rows by layer; layers that do the same share one object.
        kv_group: by layer; layers whose keys and values lie alike share one object.
        logit_rows: [R] int64, the rows whose logits are wanted.
        gates: the Work of each row by layer, [L, T] int64, for a captured graph: `layers` then
            says ALL of everything, and a row does what its bits say. None where `layers` says it.
    """

    token_ids: Tensor
    positions: Tensor
    row_starts: tuple[int, ...]
    num_cached: tuple[int, ...]
    visual_rows: Tensor
    visual_features: Tensor | None
    layers: tuple[LayerRows, ...]
    kv_group: tuple[KvGroup, ...]
    logit_rows: Tensor
    gates: Tensor | None = None
