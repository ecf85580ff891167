"""Attention over cached keys and values."""

import pytest
import torch
import torch.nn.functional as F
from kernel_errors import assert_as_exact_as, assert_near_reference
from torch import Tensor

from skipserve_kernels.attention import reference
from skipserve_kernels.attention.inputs import make_inputs
from skipserve_kernels.attention.op import KeyValues, QuerySpan, attention, store

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Query heads, key heads, head size.
HEADS = [(1, 1, 2), (4, 4, 32), (6, 2, 10), (8, 1, 64)]
# The positions of the queries among so many keys.
QUERIES = {
    "decode": ([40], 41),
    "first token": ([0], 1),
    "whole prompt": (list(range(19)), 19),
    "second chunk": (list(range(7, 33)), 33),
    "some rows": ([0, 3, 4, 17], 18),
}


def make_cache(keys: Tensor, values: Tensor, first_slot: int, dtype: torch.dtype) -> KeyValues:
    """Store keys and values in a cache that is NaN everywhere else."""
    cache = KeyValues.empty(len(keys) + first_slot + 5, keys.shape[1], keys.shape[2], dtype, CPU)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    store(cache, torch.arange(len(keys)) + first_slot, keys, values)
    return cache


def make_span(positions: list[int], first_slot: int, start: int = 0) -> QuerySpan:
    num_keys = positions[-1] + 1
    is_causal = len(positions) == num_keys > 1
    mask = torch.tensor(positions)[:, None] >= torch.arange(num_keys)
    needs_mask = len(positions) > 1 and not is_causal
    stop = start + len(positions)
    return QuerySpan(start, stop, first_slot, num_keys, mask if needs_mask else None, is_causal)


def exact_attention(query: Tensor, keys: Tensor, values: Tensor, positions: list[int]) -> Tensor:
    return plain_attention(query.double(), keys.double(), values.double(), positions)


def plain_attention(query: Tensor, keys: Tensor, values: Tensor, positions: list[int]) -> Tensor:
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1).transpose(0, 1) for x in (keys, values))
    mask = torch.tensor(positions)[:, None] >= torch.arange(keys.shape[1])
    mixed = F.scaled_dot_product_attention(query.transpose(0, 1), keys, values, attn_mask=mask)
    return mixed.transpose(0, 1).flatten(1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("queries", QUERIES)
def test_queries_attend_to_what_precedes_them(
    queries: str, heads: tuple[int, int, int], dtype: torch.dtype
) -> None:
    positions, num_keys = QUERIES[queries]
    query, keys, values = make_inputs(
        len(positions),
        num_keys,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_size=heads[2],
        dtype=dtype,
    )
    exact = exact_attention(query, keys, values, positions)
    plain = plain_attention(query, keys, values, positions)
    meant = reference.attention(query, keys, values, torch.tensor(positions))
    assert_near_reference(meant, exact)
    cache = make_cache(keys, values, first_slot=3, dtype=dtype)
    actual = attention(query, cache, [make_span(positions, first_slot=3)])
    assert_as_exact_as(actual, plain, exact)


def test_sequences_do_not_see_each_other() -> None:
    cache = KeyValues.empty(60, 2, 8, torch.float32, CPU)
    spans, queries, expected = [], [], []
    first_slot = start = 0
    for seed, (positions, num_keys) in enumerate(QUERIES.values()):
        if first_slot + num_keys > 60:
            break
        query, keys, values = make_inputs(
            len(positions), num_keys, num_heads=4, num_kv_heads=2, head_size=8, seed=seed
        )
        store(cache, torch.arange(num_keys) + first_slot, keys, values)
        spans.append(make_span(positions, first_slot, start))
        queries.append(query)
        expected.append(exact_attention(query, keys, values, positions))
        first_slot, start = first_slot + num_keys, start + len(positions)
    assert len(spans) > 1
    actual = attention(torch.cat(queries), cache, spans)
    assert torch.allclose(actual.double(), torch.cat(expected), atol=1e-5)


def test_the_cache_holds_what_was_stored_exactly() -> None:
    for dtype in DTYPES:
        _, keys, values = make_inputs(1, 9, num_heads=2, num_kv_heads=2, head_size=4, dtype=dtype)
        cache = make_cache(keys, values, first_slot=0, dtype=dtype)
        stored = cache.keys[0, :, :9].transpose(0, 1)
        assert torch.equal(stored.to(dtype), keys)
