"""Which keys the queries of a layer see and where these lie: index arithmetic on the host.

All arrays are int64. B sequences, W pages at most of a sequence, R runs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Queries:
    """The queries of one layer, by sequence.

    Attributes:
        starts: index of the first query of each sequence, and the number of queries, [B + 1].
        offsets: how far each query is from the first row of its sequence in this forward, [T].
        first_new: index of the first new key of each sequence among the layer's new keys, [B].
        num_new: new keys of each sequence up to and with the last query's own, [B]; 0 without
            queries.
        num_cached: keys of each sequence that precede the new ones, [B].
    """

    starts: Index
    offsets: Index
    first_new: Index
    num_new: Index
    num_cached: Index

    @property
    def counts(self) -> Index:
        """Queries of each sequence, [B]."""
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True)
class Runs:
    """The stretches of slots in which the positions of sequences follow each other, in order.

    Attributes:
        sequences: which sequence each run belongs to, [R].
        starts: the first position of each run, [R].
        stops: the position after its last, [R].
        slots: where the first position lives, [R].
    """

    sequences: Index
    starts: Index
    stops: Index
    slots: Index

    def cut(self, num_keys: Index) -> "Runs":
        """Keep the first so many positions of each sequence, [B]."""
        limits = num_keys[self.sequences]
        kept = self.starts < limits
        stops = np.minimum(self.stops, limits)
        return Runs(self.sequences[kept], self.starts[kept], stops[kept], self.slots[kept])


def find_queries(
    query_rows: Index, key_rows: Index, row_starts: Index, num_cached: Index
) -> Queries:
    """Sort the queries of a layer by sequence.

    Args:
        query_rows: the rows of the forward that run attention, ascending, at least one.
        key_rows: the rows that project keys, ascending; of each sequence all that precede a query.
        row_starts: the first row of each sequence, and the number of rows, [B + 1].
        num_cached: positions of each sequence before its first row, [B].
    """
    starts = query_rows.searchsorted(row_starts)
    counts = np.diff(starts)
    last = query_rows[starts[1:] - 1]
    return Queries(
        starts=starts,
        offsets=query_rows - row_starts[:-1].repeat(counts),
        first_new=key_rows.searchsorted(row_starts[:-1]),
        num_new=np.where(counts > 0, last - row_starts[:-1] + 1, 0),
        num_cached=num_cached,
    )


def find_runs(tables: Index, num_positions: Index, page_size: int) -> Runs:
    """Join neighbouring pages of sequences.

    With pages of 4, the table 7 8 3 and 10 positions, there are two runs: positions 0 to 7 from
    slot 28 on, and positions 8 and 9 from slot 12 on.

    Args:
        tables: the pages of each sequence in order, [B, W]; what lies behind its last is ignored.
        num_positions: how many of its positions count, [B].
        page_size: positions in a page.
    """
    has_page = np.arange(tables.shape[1]) * page_size < num_positions[:, None]
    begins_run = has_page.copy()
    begins_run[:, 1:] &= tables[:, 1:] != tables[:, :-1] + 1
    sequences, columns = begins_run.nonzero()
    starts = columns * page_size
    is_last = np.append(sequences[1:] != sequences[:-1], True)
    return Runs(
        sequences=sequences,
        starts=starts,
        stops=np.where(is_last, num_positions[sequences], np.append(starts[1:], 0)),
        slots=tables[sequences, columns] * page_size,
    )
