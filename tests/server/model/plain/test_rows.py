"""What blocks are told of their rows."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from row_sets import indexes_of

from skipserve.model.batch import KvGroup, Segment
from skipserve.model.plain.rows import BlockRows, prepare_rows
from skipserve.model.work import RowWork, Work
from skipserve_kernels.plain.attention.cpu_layout import Block, Layout, Reads

pytestmark = pytest.mark.fast

FACTORS = torch.arange(20.0).view(10, 2, 1, 1)
PAGE_SIZE = 2
TABLES = [[5, 6, 1, -1], [8, 3, 4, 2]]
SLOTS = [12, 13, 2, 5]
ALL = (0, 1, 2, 3)
# Three rows of a prompt's second chunk after two others; one decode row after seven.
ROW_STARTS, NUM_CACHED = (0, 3, 4), (2, 7)


def make_group(tables: list[list[int]], slots: list[int], num_cached: Sequence[int]) -> KvGroup:
    positions = torch.tensor([2, 3, 4, 7])
    return KvGroup(
        indexes_of(np.array(tables)),
        torch.tensor(slots),
        positions,
        positions,
        np.array(num_cached),
    )


def make_work(attention: Sequence[int], kv: Sequence[int] = ALL) -> list[Work]:
    """What four rows do, of which some run attention and some project keys."""
    return [Work(Work.ATTENTION * (row in attention) | Work.KV * (row in kv)) for row in ALL]


def prepare(
    attention: Sequence[int],
    kv: Sequence[int] = ALL,
    row_starts: Sequence[int] = ROW_STARTS,
    num_cached: Sequence[int] = NUM_CACHED,
) -> BlockRows:
    segment = Segment.whole(
        RowWork.of(np.array([make_work(attention, kv)], dtype=np.uint8)),
        row_starts=np.array(row_starts),
        group=make_group(TABLES, SLOTS, num_cached),
    )
    return prepare_rows(segment, FACTORS, PAGE_SIZE)[0]


def layout_of(
    attention: Sequence[int],
    row_starts: Sequence[int] = ROW_STARTS,
    num_cached: Sequence[int] = NUM_CACHED,
) -> Layout:
    layout = prepare(attention, row_starts=row_starts, num_cached=num_cached).layout
    assert isinstance(layout, Layout)
    return layout


def read_of(reads: Reads) -> list[tuple[int, int, int]]:
    return list(zip(reads.queries, reads.slots, reads.lengths, strict=True))


def test_all_rows_attend_to_their_own_sequence() -> None:
    layout = layout_of(ALL)
    (chunk,) = layout.chunks
    assert (chunk.start, chunk.stop, chunk.first_new) == (0, 3, 0)
    assert chunk.blocks == (Block(3, 3, None),)
    assert chunk.reads == ((10, 2),)
    assert read_of(layout.reads) == [(3, 16, 2), (3, 6, 4), (3, 4, 2)]


def test_keys_end_at_the_last_query() -> None:
    layout = layout_of([1, 3])
    assert layout.chunks == ()
    assert read_of(layout.reads) == [(0, 10, 4), (1, 16, 2), (1, 6, 4), (1, 4, 2)]


def test_some_rows_of_a_chunk_see_what_precedes_them() -> None:
    (chunk,) = layout_of([0, 1]).chunks
    assert chunk.blocks == (Block(2, 2, None),)
    (chunk,) = layout_of([0, 2]).chunks
    (block,) = chunk.blocks
    assert (block.num_queries, block.num_new) == (2, 3)
    assert block.bias is not None
    assert (block.bias == 0).tolist() == [[True, False, False], [True, True, True]]


def test_new_keys_are_counted_among_the_rows_that_project_them() -> None:
    layout = prepare([2, 3], [2, 3], row_starts=(0, 2, 4), num_cached=(3, 4)).layout
    assert isinstance(layout, Layout)
    (chunk,) = layout.chunks
    assert (chunk.start, chunk.first_new) == (0, 0)
    assert chunk.blocks == (Block(2, 2, None),)


def test_a_sequence_without_queries_reads_nothing() -> None:
    layout = layout_of([3])
    assert layout.chunks == ()
    assert set(layout.reads.queries) == {0}


def test_factors_and_slots_are_those_of_the_rows() -> None:
    block = prepare([3], [0, 3])
    assert [f.flatten().tolist() for f in block.query_factors] == [[14.0], [15.0]]
    assert [f.flatten().tolist() for f in block.key_factors] == [[4.0, 14.0], [5.0, 15.0]]
    assert block.slots.tolist() == [12, 5]


def test_without_attention_there_is_no_layout() -> None:
    assert prepare([]).layout is None


def test_layers_whose_keys_lie_elsewhere_have_a_layout_each() -> None:
    work = make_work(ALL)
    groups = (
        make_group(TABLES, SLOTS, NUM_CACHED),
        make_group([[0, 1, 2, -1], [3, 4, 5, 6]], [2, 3, 4, 13], NUM_CACHED),
    )
    segment = Segment(
        layers=range(2),
        work=RowWork.of(np.array([work, work], dtype=np.uint8)),
        row_starts=np.array(ROW_STARTS),
        kv_groups=groups,
        kv_group_of=(0, 1),
    )
    prepared = prepare_rows(segment, FACTORS, PAGE_SIZE)
    layout = prepared[1].layout
    assert isinstance(layout, Layout)
    assert read_of(layout.reads) == [(3, 6, 8)]
    assert prepared[1].slots is groups[1].slots
    assert prepared[0] is not prepared[1]


def test_a_whole_prompt_is_causal_and_reads_nothing_else() -> None:
    (chunk,) = layout_of(ALL, row_starts=(0, 4, 4), num_cached=(0, 0)).chunks
    assert (chunk.blocks, chunk.reads) == ((Block(4, 4, None),), ())
