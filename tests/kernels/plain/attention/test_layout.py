"""Where keys lie and which of them queries see."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve_kernels.plain.attention.layout import Index, Runs, find_queries, find_runs

pytestmark = pytest.mark.fast


def array(*values: int) -> Index:
    return np.array(values, dtype=np.int64)


def slots_of(runs: Runs, sequence: int) -> list[int]:
    """Spell out where the positions of a sequence live; they must come in order."""
    slots: list[int] = []
    for owner, start, stop, slot in zip(
        runs.sequences, runs.starts, runs.stops, runs.slots, strict=True
    ):
        if owner == sequence:
            assert start == len(slots)
            slots += range(slot, slot + stop - start)
    return slots


def test_neighbouring_pages_are_joined() -> None:
    runs = find_runs(np.array([[7, 8, 3, 4]], dtype=np.int64), array(10), page_size=4)
    assert runs.starts.tolist() == [0, 8]
    assert runs.stops.tolist() == [8, 10]
    assert runs.slots.tolist() == [28, 12]


def test_pages_far_out_are_counted_in_64_bits() -> None:
    runs = find_runs(np.array([[2**27]], dtype=np.int64), array(1), page_size=64)
    assert runs.slots.tolist() == [2**33]


tables = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), min_size=1, max_size=4)


@given(tables=tables, page_size=st.integers(1, 4), data=st.data())
def test_runs_are_the_positions_of_each_sequence(
    tables: list[list[int]], page_size: int, data: st.DataObject
) -> None:
    width = max(len(table) for table in tables)
    behind_last = data.draw(st.integers(-1, 13))
    padded = np.array([t + [behind_last] * (width - len(t)) for t in tables], dtype=np.int64)
    lengths = [data.draw(st.integers(0, len(t) * page_size)) for t in tables]
    limits = [data.draw(st.integers(0, length)) for length in lengths]
    runs = find_runs(padded, array(*lengths), page_size)
    cut = runs.cut(array(*limits))
    for sequence, table in enumerate(tables):
        slots = [page * page_size + i for page in table for i in range(page_size)]
        assert slots_of(runs, sequence) == slots[: lengths[sequence]]
        assert slots_of(cut, sequence) == slots[: limits[sequence]]
        pages = table[: -(-lengths[sequence] // page_size)]
        num_jumps = sum(b != a + 1 for a, b in pairwise(pages))
        assert (runs.sequences == sequence).sum() == num_jumps + bool(pages)


def test_queries_are_sorted_by_sequence() -> None:
    # Rows 0 to 4, 5, and 6 to 8 of three sequences.
    queries = find_queries(
        query_rows=array(1, 3, 7),
        key_rows=array(0, 1, 2, 3, 6, 7),
        row_starts=array(0, 5, 6, 9),
        num_cached=array(0, 8, 2),
    )
    assert queries.counts.tolist() == [2, 0, 1]
    assert queries.offsets.tolist() == [1, 3, 1]
    assert queries.first_new[[0, 2]].tolist() == [0, 4]
    assert queries.num_new.tolist() == [4, 0, 2]
