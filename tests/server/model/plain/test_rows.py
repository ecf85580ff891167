"""What blocks are told of their rows."""

from typing import Any

import numpy as np
import pytest
import torch

from skipserve.model.batch import Batch, Every, Indexes, KvGroup, LayerRows, RowSet
from skipserve.model.plain.rows import BlockRows, block_key, prepare_rows
from skipserve_kernels.attention.cpu_layout import Block, Layout, Reads

pytestmark = pytest.mark.fast

FACTORS = torch.arange(20.0).view(10, 2, 1, 1)
IDLE = LayerRows(attention=Every.NONE, kv=Every.NONE, ffn=Every.NONE)
PAGE_SIZE = 2
GROUP = KvGroup(
    tables=Indexes.of(np.array([[5, 6, 1, -1], [8, 3, 4, 2]])),
    slots=torch.tensor([12, 13, 2, 5]),
)


def make_batch(*layers: LayerRows, **changes: Any) -> Batch:
    """Three rows of a prompt's second chunk after two others; one decode row after seven."""
    fields: dict[str, Any] = {
        "token_ids": torch.zeros(4, dtype=torch.int64),
        "positions": torch.tensor([2, 3, 4, 7]),
        "row_starts": (0, 3, 4),
        "num_cached": (2, 7),
        "visual_rows": torch.empty(0, dtype=torch.int64),
        "visual_features": None,
        "layers": layers,
        "kv_group": (GROUP,) * len(layers),
        "logit_rows": torch.tensor([2, 3]),
    }
    return Batch(**(fields | changes))


def prepare(rows: LayerRows, **changes: Any) -> BlockRows:
    return prepare_rows(make_batch(rows, **changes), FACTORS, PAGE_SIZE)[block_key(rows, GROUP)]


def layout_of(attention: RowSet, **changes: Any) -> Layout:
    layout = prepare(LayerRows(attention=attention), **changes).layout
    assert isinstance(layout, Layout)
    return layout


def read_of(reads: Reads) -> list[tuple[int, int, int]]:
    return list(zip(reads.queries, reads.slots, reads.lengths, strict=True))


def test_all_rows_attend_to_their_own_sequence() -> None:
    layout = layout_of(Every.ALL)
    (chunk,) = layout.chunks
    assert (chunk.start, chunk.stop, chunk.first_new) == (0, 3, 0)
    assert chunk.blocks == (Block(3, 3, None),)
    assert chunk.reads == ((10, 2),)
    assert read_of(layout.reads) == [(3, 16, 2), (3, 6, 4), (3, 4, 2)]


def test_keys_end_at_the_last_query() -> None:
    layout = layout_of(Indexes.of([1, 3]))
    assert layout.chunks == ()
    assert read_of(layout.reads) == [(0, 10, 4), (1, 16, 2), (1, 6, 4), (1, 4, 2)]


def test_some_rows_of_a_chunk_see_what_precedes_them() -> None:
    (chunk,) = layout_of(Indexes.of([0, 1])).chunks
    assert chunk.blocks == (Block(2, 2, None),)
    (chunk,) = layout_of(Indexes.of([0, 2])).chunks
    (block,) = chunk.blocks
    assert (block.num_queries, block.num_new) == (2, 3)
    assert block.bias is not None
    assert (block.bias == 0).tolist() == [[True, False, False], [True, True, True]]


def test_new_keys_are_counted_among_the_rows_that_project_them() -> None:
    rows = LayerRows(attention=Indexes.of([2, 3]), kv=Indexes.of([2, 3]))
    starts = {"row_starts": (0, 2, 4), "num_cached": (3, 4)}
    layout = prepare(rows, **starts).layout
    assert isinstance(layout, Layout)
    (chunk,) = layout.chunks
    assert (chunk.start, chunk.first_new) == (0, 0)
    assert chunk.blocks == (Block(2, 2, None),)


def test_a_sequence_without_queries_reads_nothing() -> None:
    layout = layout_of(Indexes.of([3]))
    assert layout.chunks == ()
    assert set(layout.reads.queries) == {0}


def test_factors_and_slots_are_those_of_the_rows() -> None:
    block = prepare(LayerRows(attention=Indexes.of([3]), kv=Indexes.of([0, 3])))
    assert [f.flatten().tolist() for f in block.query_factors] == [[14.0], [15.0]]
    assert [f.flatten().tolist() for f in block.key_factors] == [[4.0, 14.0], [5.0, 15.0]]
    assert block.slots.tolist() == [12, 5]


def test_without_attention_there_is_no_layout() -> None:
    assert prepare(LayerRows(attention=Every.NONE)).layout is None


def test_layers_that_agree_share_and_idle_ones_have_nothing() -> None:
    shared = LayerRows()
    prepared = prepare_rows(make_batch(shared, IDLE, shared), FACTORS, PAGE_SIZE)
    assert list(prepared) == [block_key(shared, GROUP)]


def test_layers_whose_keys_lie_elsewhere_do_not_share() -> None:
    rows = LayerRows()
    tables = Indexes.of(np.array([[0, 1, 2, -1], [3, 4, 5, 6]]))
    other = KvGroup(tables=tables, slots=torch.tensor([2, 3, 4, 13]))
    prepared = prepare_rows(make_batch(rows, rows, kv_group=(GROUP, other)), FACTORS, PAGE_SIZE)
    layout = prepared[block_key(rows, other)].layout
    assert isinstance(layout, Layout)
    assert read_of(layout.reads) == [(3, 6, 8)]
    assert prepared[block_key(rows, other)].slots is other.slots
    assert len(prepared) == 2


def test_a_whole_prompt_is_causal_and_reads_nothing_else() -> None:
    (chunk,) = layout_of(Every.ALL, row_starts=(0, 4, 4), num_cached=(0, 0)).chunks
    assert (chunk.blocks, chunk.reads) == ((Block(4, 4, None),), ())
