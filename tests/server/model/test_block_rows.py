"""What blocks are told of their rows."""

import pytest
import torch

from skipserve.model.batch import Batch, Every, LayerRows, RowSet, Span
from skipserve.model.block_rows import BlockRows, prepare_rows

pytestmark = pytest.mark.fast

FACTORS = torch.arange(20.0).view(10, 2, 1, 1)
IDLE = LayerRows(attention=Every.NONE, kv=Every.NONE, ffn=Every.NONE)


def make_batch(*layers: LayerRows) -> Batch:
    """Three rows of a prompt's second chunk, from slot 10; one decode row, from slot 30."""
    return Batch(
        token_ids=torch.zeros(4, dtype=torch.int64),
        positions=torch.tensor([2, 3, 4, 7]),
        slots=torch.tensor([12, 13, 14, 37]),
        visual_rows=torch.empty(0, dtype=torch.int64),
        visual_features=None,
        spans=(Span(0, 3, 2, 10), Span(3, 4, 7, 30)),
        layers=layers,
        logit_rows=torch.tensor([2, 3]),
    )


def prepare(attention: RowSet) -> BlockRows:
    rows = LayerRows(attention=attention)
    return prepare_rows(make_batch(rows), FACTORS)[id(rows)]


def test_all_rows_attend_to_their_own_sequence() -> None:
    chunk, decode = prepare(Every.ALL).spans
    assert (chunk.start, chunk.stop, chunk.first_slot, chunk.num_keys) == (0, 3, 10, 5)
    assert not chunk.is_causal
    assert chunk.mask is not None
    assert chunk.mask.tolist() == [
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, True, True, True],
    ]
    assert (decode.start, decode.stop, decode.first_slot, decode.num_keys) == (3, 4, 30, 8)
    assert decode.mask is None


def test_keys_end_at_the_last_query() -> None:
    first, decode = prepare(torch.tensor([1, 3])).spans
    assert (first.start, first.stop, first.num_keys, first.mask) == (0, 1, 4, None)
    assert (decode.start, decode.stop, decode.num_keys) == (1, 2, 8)


def test_a_sequence_without_queries_has_no_span() -> None:
    (span,) = prepare(torch.tensor([3])).spans
    assert (span.start, span.stop, span.first_slot) == (0, 1, 30)


def test_factors_and_slots_are_those_of_the_rows() -> None:
    rows = LayerRows(attention=torch.tensor([3]), kv=torch.tensor([0, 3]))
    block = prepare_rows(make_batch(rows), FACTORS)[id(rows)]
    assert [f.flatten().tolist() for f in block.query_factors] == [[14.0], [15.0]]
    assert [f.flatten().tolist() for f in block.key_factors] == [[4.0, 14.0], [5.0, 15.0]]
    assert block.slots.tolist() == [12, 37]


def test_layers_that_agree_share_and_idle_ones_have_nothing() -> None:
    shared = LayerRows()
    assert list(prepare_rows(make_batch(shared, IDLE, shared), FACTORS)) == [id(shared)]


def test_a_whole_prompt_is_causal() -> None:
    rows = LayerRows()
    batch = make_batch(rows)
    whole = Batch(**{**vars(batch), "spans": (Span(0, 4, 0, 10),)})
    (span,) = prepare_rows(whole, FACTORS)[id(rows)].spans
    assert span.is_causal
    assert span.mask is None
