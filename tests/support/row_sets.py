"""Row sets for tests: made of numbers, and told as lists."""

from collections.abc import Sequence

import numpy as np
import torch

from skipserve.model.work import Every, Index, Indexes, RowSet


def indexes_of(numbers: Index | Sequence[int]) -> Indexes:
    """Return numbers for a forward on the CPU."""
    host = np.asarray(numbers, dtype=np.int64)
    return Indexes(host, torch.from_numpy(host))


def members(rows: RowSet, num_rows: int) -> list[int]:
    """Return the rows of a set of a forward of so many, which must not have an index needlessly."""
    if isinstance(rows, Every):
        return list(range(num_rows)) if rows is Every.ALL else []
    assert rows.device.tolist() == rows.host.tolist()
    assert 0 < len(rows.host) < num_rows, "a set that needs no index has one"
    return [int(row) for row in rows.host]
