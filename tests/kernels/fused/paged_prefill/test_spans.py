"""How rows are shared out to programs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve_kernels.fused.paged_prefill.spans import find_spans

pytestmark = pytest.mark.fast


@given(counts=st.lists(st.integers(0, 40), max_size=6), tile_rows=st.sampled_from([1, 4, 16]))
def test_spans_cover_each_entry_once(counts: list[int], tile_rows: int) -> None:
    spans = find_spans(np.array(counts, dtype=np.int64), tile_rows)
    assert spans.dtype == np.int64
    assert spans.shape == (sum(-(-count // tile_rows) for count in counts), 3)
    covered = [
        (sequence, entry)
        for sequence, first, number in spans.tolist()
        for entry in range(first, first + number)
    ]
    owners = [sequence for sequence, count in enumerate(counts) for _ in range(count)]
    assert covered == list(zip(owners, range(len(owners)), strict=True))
    assert all(1 <= number <= tile_rows for number in spans[:, 2].tolist())
