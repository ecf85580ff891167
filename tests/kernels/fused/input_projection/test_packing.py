"""Packing of the weights and factors of an input projection."""

import pytest
import torch

from skipserve_kernels.fused.input_projection.packing import (
    Part,
    pack_factors,
    pack_inputs,
)
from skipserve_kernels.projection import Projection

pytestmark = pytest.mark.fast

# One head of queries, keys and values each, of four rows; three rows of gate and up; D is 2.
QUERY, KEY, VALUE, GATE, UP = (
    torch.arange(first, first + number).repeat_interleave(2).view(-1, 2).float()
    for first, number in ((0, 4), (10, 4), (20, 4), (30, 3), (40, 3))
)
ROWS = [0, 2, 1, 3, 10, 12, 11, 13, 20, 21, 22, 23, 30, 40, 31, 41, 32, 42]


def test_rows_go_where_epilogues_expect_them() -> None:
    layers = [Projection(weight) for weight in (QUERY, KEY, VALUE, GATE, UP)]
    packed = pack_inputs(*layers, head_size=4)
    assert packed.weight.tolist() == [[row, row] for row in ROWS]
    assert packed.weight.is_contiguous()
    assert packed.bias is None
    assert (packed.num_heads, packed.num_kv_heads, packed.head_size) == (1, 1, 4)
    assert (packed.hidden_size, packed.ffn_size) == (2, 3)
    assert (packed.query_size, packed.key_value_size, packed.attention_size) == (4, 4, 12)


def test_each_head_is_reordered_by_itself() -> None:
    query = torch.arange(8.0).view(8, 1)
    layers = [Projection(query)] + [Projection(torch.zeros(4, 1)) for _ in range(4)]
    packed = pack_inputs(*layers, head_size=4)
    assert packed.weight[:8, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert (packed.num_heads, packed.num_kv_heads) == (2, 1)


def test_biases_are_packed_as_rows_are_and_missing_ones_are_zero() -> None:
    layers = [Projection(weight, weight[:, 0] + 100) for weight in (QUERY, KEY, VALUE, GATE)]
    layers.append(Projection(UP))
    packed = pack_inputs(*layers, head_size=4)
    assert packed.bias is not None
    assert packed.bias.tolist() == [0 if row >= 40 else row + 100 for row in ROWS]


def test_parts_are_ranges_of_rows() -> None:
    layers = [Projection(weight) for weight in (QUERY, KEY, VALUE, GATE, UP)]
    packed = pack_inputs(*layers, head_size=4)
    assert {part: packed.rows(part) for part in Part} == {
        Part.QUERY: range(4),
        Part.KEY_VALUE: range(4, 12),
        Part.QUERY_KEY_VALUE: range(12),
        Part.FFN: range(12, 18),
        Part.ALL: range(18),
    }


def test_parts_say_what_they_compute() -> None:
    def those(predicate: str) -> set[Part]:
        return {part for part in Part if getattr(part, predicate)}

    assert those("has_query") == {Part.QUERY, Part.QUERY_KEY_VALUE, Part.ALL}
    assert those("has_key_value") == {Part.KEY_VALUE, Part.QUERY_KEY_VALUE, Part.ALL}
    assert those("has_attention") == set(Part) - {Part.FFN}
    assert those("has_ffn") == {Part.FFN, Part.ALL}


def test_factors_keep_one_half_of_each_table() -> None:
    cosine = torch.tensor([[1, 2, 1, 2], [3, 4, 3, 4]], dtype=torch.bfloat16)
    factors = pack_factors(cosine, cosine + 10)
    assert factors.dtype is torch.float32
    assert factors.is_contiguous()
    assert factors.tolist() == [[[1, 2], [11, 12]], [[3, 4], [13, 14]]]


def test_sizes_that_make_no_heads_are_refused() -> None:
    layers = [Projection(weight) for weight in (QUERY, KEY, VALUE, GATE, UP)]
    with pytest.raises(AssertionError):
        pack_inputs(*layers, head_size=3)
