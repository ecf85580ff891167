"""What the rows of a forward do at each layer: bits by column, and the row sets that follow.

A row is one token of one sequence; T is the number of rows. Rows of one column do the same at
every layer: C columns stand for the token classes of all plans at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.model.transfer import to_device

Index = NDArray[np.int64]


class Work(IntFlag):
    """What a row does in a block.

    PARALLEL: its FFN reads the block's input through its own norm; PARALLEL_SHARED: through the
    attention's norm, in OPT's blocks through both; SERIAL, which follows from the others: an FFN
    that reads what attention left.
    PAIR_FIRST: it remembers the block's input for the next block; PAIR_SECOND: it runs on what was
    remembered and takes the mean of both blocks.
    """

    ATTENTION = 1
    KV = 2
    FFN = 4
    PARALLEL = 8
    PARALLEL_SHARED = 16
    PAIR_FIRST = 32
    PAIR_SECOND = 64
    SERIAL = 128


@dataclass(frozen=True, eq=False)
class Indexes:
    """Numbers that the host needs to plan a forward and the device to run it.

    Attributes:
        host: int64.
        device: the same, where the forward runs; on the CPU it shares its memory with `host`.
    """

    host: Index
    device: Tensor


class Every(Enum):
    """A row set that needs no index."""

    NONE = "none"
    ALL = "all"


# Which rows of a batch do something: none, all, or the ascending indexes [N].
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


def host_indexes(rows: RowSet, num_rows: int) -> Index:
    """Return the rows of a set on the host, ascending, of a forward of so many."""
    if isinstance(rows, Indexes):
        return rows.host
    return np.arange(num_rows if rows is Every.ALL else 0)


class LayerRows(NamedTuple):
    """The rows that do each Work in one block, in the order of its bits; equal sets are one object.

    `kv` holds every row of `attention`; `parallel`, `parallel_shared` and `serial` share out `ffn`.
    """

    attention: RowSet = Every.ALL
    kv: RowSet = Every.ALL
    ffn: RowSet = Every.ALL
    parallel: RowSet = Every.NONE
    parallel_shared: RowSet = Every.NONE
    pair_first: RowSet = Every.NONE
    pair_second: RowSet = Every.NONE
    serial: RowSet = Every.ALL

    @property
    def is_idle(self) -> bool:
        """Whether no row needs the block, so that it is not launched at all."""
        return self.kv is Every.NONE and self.ffn is Every.NONE

    @property
    def is_paired(self) -> bool:
        """Whether some row is in a pair of blocks."""
        return self.pair_first is not Every.NONE or self.pair_second is not Every.NONE


@dataclass(frozen=True, eq=False)
class Pattern:
    """Who does what in a forward of some columns, before its rows are known.

    Row sets have numbers: 0 is NONE, 1 is ALL, and 2 + s is the rows of the columns `sets[s]`.

    Attributes:
        kinds: the distinct layers, each as the numbers of its LayerRows.
        kind_of: which of them each layer of the model is.
        sets: the distinct sets that are neither none nor all, each as its columns, [C] bool.
    """

    kinds: tuple[tuple[int, ...], ...]
    kind_of: tuple[int, ...]
    sets: tuple[NDArray[np.bool_], ...]

    @classmethod
    def find(cls, work: NDArray[np.uint8], occurs: NDArray[np.bool_]) -> Self:
        """Find the distinct layers among the columns that occur, and the distinct sets in them.

        With two columns of work in three layers, 3 3 7 and 3 0 7 (3 is attention and K/V, 7 the FFN
        besides): layer 0 has attention and K/V ALL, layer 1 has them at the rows of the first
        column, layer 2 has attention, K/V and FFN ALL. All other sets are NONE.

        Args:
            work: bits of Work, [C, L].
            occurs: which columns some row has, [C].
        """
        layers = [layer.tobytes() for layer in np.where(occurs[:, None], work, 0).T]
        places = {layer: place for place, layer in enumerate(dict.fromkeys(layers))}
        numbers = {bytes(len(occurs)): 0, occurs.tobytes(): 1}

        def number(layer: bytes, bit: Work) -> int:
            columns = (np.frombuffer(layer, np.uint8) & bit.value) != 0
            return numbers.setdefault(columns.tobytes(), len(numbers))

        kinds = tuple(tuple(number(layer, bit) for bit in Work) for layer in places)
        sets = tuple(np.frombuffer(columns, np.bool_) for columns in list(numbers)[2:])
        return cls(kinds, tuple(places[layer] for layer in layers), sets)

    def indexes(self, columns: Index) -> list[Index]:
        """Return the rows of each of the sets, given the column of each row, [T]."""
        return [np.flatnonzero(of_columns[columns]) for of_columns in self.sets]


@dataclass(frozen=True, eq=False)
class RowWork:
    """Which rows of a forward do what at each layer.

    Attributes:
        kinds: the distinct layers.
        kind_of: which of them each layer of the model is.
        sets: all row sets in them, each once.
    """

    kinds: tuple[LayerRows, ...]
    kind_of: tuple[int, ...]
    sets: tuple[RowSet, ...]

    @classmethod
    def select(cls, pattern: Pattern, indexes: Sequence[Indexes]) -> Self:
        """Put the rows of a forward into a pattern, given the indexes of its sets."""
        sets: tuple[RowSet, ...] = (Every.NONE, Every.ALL, *indexes)
        kinds = (LayerRows._make(map(sets.__getitem__, kind)) for kind in pattern.kinds)
        return cls(tuple(kinds), pattern.kind_of, sets)

    @classmethod
    def of(cls, work: NDArray[np.uint8], device: torch.device | None = None) -> Self:
        """Return rows that do what bits say, [L, T]; on the CPU unless a device is given."""
        rows = np.arange(work.shape[1])
        pattern = Pattern.find(work.T, np.ones(len(rows), dtype=np.bool_))
        indexes = pattern.indexes(rows)
        sent = to_device(indexes, device or torch.device("cpu"))
        return cls.select(pattern, list(map(Indexes, indexes, sent)))


@dataclass(frozen=True, eq=False)
class GatedWork:
    """Which rows do what, where only the device knows: in a captured graph, whose bits change.

    All rows take part in all blocks, and each does what its bits say; none is in a pair.

    Attributes:
        gates: the Work of each row by layer of the model, [L, T] int64.
    """

    gates: Tensor
    kinds: ClassVar = (LayerRows(),)

    @property
    def kind_of(self) -> tuple[int, ...]:
        """Which of the kinds each layer is."""
        return (0,) * len(self.gates)
