"""What each sequence's queries read on the CPU: index arithmetic on the host."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve_kernels.plain.attention.layout import Index, Queries, Runs

# New keys are read by so many queries at a time, each time up to the last query's own: a causal
# read of less than 512 keys computes what it masks too. 299 rows of 16 heads of 64 take 3.7 ms in
# blocks, 5.6 ms at once.
_QUERIES_PER_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Reads:
    """What the sequences with one query read, run by run.

    Attributes:
        queries: index of the query of each read.
        slots: the first slot of each.
        lengths: how many slots.
        merge: how to join the reads of a query; None where each query has one.
    """

    queries: list[int]
    slots: list[int]
    lengths: list[int]
    merge: "Merge | None"


@dataclass(frozen=True, slots=True)
class Merge:
    """How R reads become N results, int64.

    Attributes:
        targets: which result each read belongs to, [R].
        places: its place in a table of all results and their reads, row by row, [R].
        shape: of that table: N, and the most reads of one result.
    """

    targets: Tensor
    places: Tensor
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """Some queries of a sequence and the new keys that they see.

    Attributes:
        num_queries: how many, Q.
        num_new: new keys up to and with the last query's own, N.
        bias: [Q, N] float32, -inf where a query does not see a key; None where the queries are
            those of the first N new rows.
    """

    num_queries: int
    num_new: int
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """The several queries of one sequence.

    Attributes:
        start: index of the first of them.
        stop: index after the last.
        first_new: index of the sequence's first new key.
        blocks: the queries, a few at a time, and which new keys they read.
        reads: the runs of cached keys that all of them read: first slot and length.
    """

    start: int
    stop: int
    first_new: int
    blocks: tuple[Block, ...]
    reads: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the queries of a layer read.

    Attributes:
        reads: those of sequences with one query.
        singles: their queries, [N] int64.
        chunks: the other sequences.
    """

    reads: Reads
    singles: Tensor
    chunks: tuple[Chunk, ...]


def prepare(queries: Queries, runs: Runs) -> Layout:
    """Say what the queries of each sequence read.

    One query reads its own key from the cache as well; several read just what precedes them.
    """
    counts = queries.counts
    is_single = counts == 1
    limits = np.where(is_single, queries.num_cached + queries.num_new, queries.num_cached)
    seen = runs.cut(np.where(counts > 0, limits, 0))
    chunks = (counts > 1).nonzero()[0].tolist()
    return Layout(
        reads=_reads(queries, seen, is_single),
        singles=torch.from_numpy(queries.starts[:-1][is_single]),
        chunks=tuple(_chunk(queries, seen, sequence) for sequence in chunks),
    )


def _reads(queries: Queries, runs: Runs, is_single: NDArray[np.bool_]) -> Reads:
    mine = is_single[runs.sequences]
    sequences = runs.sequences[mine]
    return Reads(
        queries=queries.starts[sequences].tolist(),
        slots=runs.slots[mine].tolist(),
        lengths=(runs.stops - runs.starts)[mine].tolist(),
        merge=_merge((is_single.cumsum() - 1)[sequences]),
    )


def _merge(targets: Index) -> Merge | None:
    """Join reads, given which result each belongs to: ascending from 0 without gaps."""
    num_reads = np.bincount(targets)
    if len(num_reads) == len(targets):
        return None
    ranks = np.arange(len(targets)) - (num_reads.cumsum() - num_reads)[targets]
    width = int(num_reads.max())
    places = torch.from_numpy(targets * width + ranks)
    return Merge(torch.from_numpy(targets), places, (len(num_reads), width))


def _chunk(queries: Queries, runs: Runs, sequence: int) -> Chunk:
    start, stop = queries.starts[sequence : sequence + 2].tolist()
    bounds = range(start, stop, _QUERIES_PER_BLOCK)
    mine = runs.sequences == sequence
    lengths = (runs.stops - runs.starts)[mine]
    return Chunk(
        start=start,
        stop=stop,
        first_new=int(queries.first_new[sequence]),
        blocks=tuple(
            _block(queries.offsets[first : min(first + _QUERIES_PER_BLOCK, stop)])
            for first in bounds
        ),
        reads=tuple(zip(runs.slots[mine].tolist(), lengths.tolist(), strict=True)),
    )


def _block(offsets: Index) -> Block:
    """Say what queries see of the new keys, given how far they are from the first of them."""
    num_queries, num_new = len(offsets), int(offsets[-1]) + 1
    if num_queries == num_new:
        return Block(num_queries, num_new, None)
    is_later = torch.from_numpy(offsets[:, None] < np.arange(num_new))
    bias = torch.zeros(is_later.shape).masked_fill_(is_later, -torch.inf)
    return Block(num_queries, num_new, bias)
