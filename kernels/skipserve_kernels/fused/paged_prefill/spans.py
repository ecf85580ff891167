"""How the rows of several sequences are shared out to programs: index arithmetic on the host."""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def find_spans(counts: Index, tile_rows: int) -> Index:
    """Cut the entries of each sequence into spans of at most `tile_rows`.

    Sequences without entries have no span:

        >>> find_spans(np.array([2, 0, 5]), tile_rows=4).tolist()
        [[0, 0, 2], [2, 2, 4], [2, 6, 1]]

    Args:
        counts: entries of each sequence, [B]; those of a sequence follow each other, and those of
            the next one follow them.
        tile_rows: entries that one program computes at most.

    Returns:
        [G, 3]: which sequence, the first entry, and how many.
    """
    num_spans = -(-counts // tile_rows)
    sequences = np.arange(len(counts)).repeat(num_spans)
    first_spans = num_spans.cumsum() - num_spans
    skipped = (np.arange(len(sequences)) - first_spans[sequences]) * tile_rows
    first_entries = counts.cumsum() - counts
    return np.stack(
        (
            sequences,
            first_entries[sequences] + skipped,
            np.minimum(counts[sequences] - skipped, tile_rows),
        ),
        axis=1,
    )
