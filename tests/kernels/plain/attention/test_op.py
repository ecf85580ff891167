"""Attention over paged keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_errors import assert_as_exact_as, assert_near_reference
from torch import Tensor

from skipserve_kernels.key_values import KeyValues
from skipserve_kernels.plain.attention import cpu, reference
from skipserve_kernels.plain.attention.inputs import make_inputs
from skipserve_kernels.plain.attention.layout import find_queries, find_runs
from skipserve_kernels.plain.attention.op import attention, cache_dtype, new_cache, prepare, store

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Query heads, key heads, head size.
HEADS = [(1, 1, 2), (4, 4, 32), (6, 2, 10), (8, 1, 64)]
PAGE_SIZE = 4


@dataclass(frozen=True)
class Asked:
    """What one sequence asks for: keys in the cache, new ones, and which new rows query."""

    num_cached: int
    num_new: int
    offsets: tuple[int, ...]

    @property
    def num_seen(self) -> int:
        """Keys up to the last query's own; later rows project none."""
        return self.positions[-1] + 1

    @property
    def positions(self) -> list[int]:
        return [self.num_cached + offset for offset in self.offsets]


CASES = {
    "decode": Asked(40, 1, (0,)),
    "first token": Asked(0, 1, (0,)),
    "whole prompt": Asked(0, 19, tuple(range(19))),
    "second chunk": Asked(7, 26, tuple(range(26))),
    "some rows": Asked(0, 18, (0, 3, 4, 17)),
    "some rows of a second chunk": Asked(9, 18, (2, 3, 11)),
    "last row of a second chunk": Asked(5, 12, (11,)),
    "several blocks": Asked(0, 150, tuple(range(150))),
    "several blocks of a second chunk": Asked(9, 150, (*range(70), *range(90, 149))),
}
ORDERS = {
    "one run": lambda count: range(2, 2 + count),
    "few runs": lambda count: [*range(count // 2, count), *range(count // 2)],
    "backwards": lambda count: range(2 * count, 0, -2),
}


@pytest.fixture(params=["merged", "gathered"])
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with the private operator and as if it was missing."""
    assert cpu.can_merge()
    if request.param == "gathered":
        monkeypatch.setattr(cpu, "can_merge", lambda: False)


class Drawn:
    """Random queries, keys and values of one sequence."""

    def __init__(
        self, asked: Asked, heads: tuple[int, int, int], dtype: torch.dtype, seed: int = 0
    ) -> None:
        self.asked = asked
        self.query, self.keys, self.values = make_inputs(
            len(asked.offsets),
            asked.num_seen,
            num_heads=heads[0],
            num_kv_heads=heads[1],
            head_size=heads[2],
            dtype=dtype,
            seed=seed,
        )

    @property
    def exact(self) -> Tensor:
        """What attention means, in float64."""
        wide = (self.query.double(), self.keys.double(), self.values.double())
        return plain_attention(*wide, self.asked.positions)

    @property
    def plain(self) -> Tensor:
        """What torch makes of it."""
        return plain_attention(self.query, self.keys, self.values, self.asked.positions)


def plain_attention(query: Tensor, keys: Tensor, values: Tensor, positions: list[int]) -> Tensor:
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1).transpose(0, 1) for x in (keys, values))
    mask = torch.tensor(positions)[:, None] >= torch.arange(keys.shape[1])
    mixed = F.scaled_dot_product_attention(query.transpose(0, 1), keys, values, attn_mask=mask)
    return mixed.transpose(0, 1).flatten(1)


def attend(drawn: Sequence[Drawn], tables: Sequence[Sequence[int]]) -> Tensor:
    """Run all sequences together; what was not stored is NaN in the cache."""
    cache = filled_cache(drawn, tables)
    asked = [d.asked for d in drawn]
    row_starts = np.array([0, *accumulate(a.num_new for a in asked)])
    num_cached = np.array([a.num_cached for a in asked])
    pairs = list(zip(row_starts[:-1], asked, strict=True))
    query_rows = np.array([start + offset for start, a in pairs for offset in a.offsets])
    key_rows = np.concatenate([np.arange(start, start + a.offsets[-1] + 1) for start, a in pairs])
    queries = find_queries(query_rows, key_rows, row_starts, num_cached)
    width = max(map(len, tables))
    padded = np.array([[*t, *[-1] * (width - len(t))] for t in tables], dtype=np.int64)
    runs = find_runs(padded, np.array([a.num_seen for a in asked]), PAGE_SIZE)
    new = (
        torch.cat([d.keys[d.asked.num_cached :] for d in drawn]).to(cache.keys.dtype),
        torch.cat([d.values[d.asked.num_cached :] for d in drawn]).to(cache.keys.dtype),
    )
    query = torch.cat([d.query for d in drawn]).to(cache.keys.dtype)
    return attention(query, new, cache, prepare(queries, runs, CPU)).to(drawn[0].query.dtype)


def filled_cache(drawn: Sequence[Drawn], tables: Sequence[Sequence[int]]) -> KeyValues:
    num_pages = 1 + max(page for table in tables for page in table)
    _, num_heads, head_size = drawn[0].keys.shape
    num_slots = num_pages * PAGE_SIZE
    cache = new_cache(num_slots, num_heads, head_size, drawn[0].keys.dtype, CPU)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    for d, table in zip(drawn, tables, strict=True):
        positions = torch.arange(d.asked.num_seen)
        slots = torch.tensor(table)[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE
        store(cache, slots, d.keys.to(cache.keys.dtype), d.values.to(cache.keys.dtype))
    return cache


def num_pages(asked: Asked) -> int:
    return -(-asked.num_seen // PAGE_SIZE)


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_queries_attend_to_what_precedes_them(
    case: str, order: str, heads: tuple[int, int, int], dtype: torch.dtype
) -> None:
    asked = CASES[case]
    drawn = Drawn(asked, heads, dtype)
    meant = reference.attention(
        drawn.query, drawn.keys, drawn.values, torch.tensor(asked.positions)
    )
    assert_near_reference(meant, drawn.exact)
    actual = attend([drawn], [list(ORDERS[order](num_pages(asked)))])
    assert_as_exact_as(actual, drawn.plain, drawn.exact)


@st.composite
def askings(draw: st.DrawFn) -> Asked:
    num_new = draw(st.integers(1, 12))
    offsets = draw(st.sets(st.integers(0, num_new - 1), min_size=1))
    return Asked(draw(st.integers(0, 20)), num_new, tuple(sorted(offsets)))


@pytest.mark.usefixtures("_path")
@settings(max_examples=40)
@given(some=st.lists(askings(), min_size=1, max_size=6), data=st.data())
def test_sequences_do_not_see_each_other(some: list[Asked], data: st.DataObject) -> None:
    drawn = [Drawn(a, (4, 2, 8), torch.float32, seed) for seed, a in enumerate(some)]
    counts = [num_pages(a) for a in some]
    pages = iter(data.draw(st.permutations(range(sum(counts)))))
    tables = [[next(pages) for _ in range(count)] for count in counts]
    expected = torch.cat([d.exact for d in drawn])
    assert torch.allclose(attend(drawn, tables).double(), expected, atol=1e-5)


@pytest.mark.usefixtures("_path")
def test_sequences_may_share_pages() -> None:
    first, second = (Drawn(CASES["decode"], (4, 4, 8), torch.float32, seed) for seed in (1, 2))
    second.keys[:16], second.values[:16] = first.keys[:16], first.values[:16]
    shared = [3, 4, 9, 1]
    tables = [[*shared, *range(20, 27)], [*shared, *range(30, 37)]]
    expected = torch.cat([first.exact, second.exact])
    assert torch.allclose(attend([first, second], tables).double(), expected, atol=1e-5)


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("order", ["one run", "few runs"])
def test_256_sequences_of_one_row(order: str) -> None:
    drawn = [
        Drawn(Asked(seed % 37, 1, (0,)), (2, 1, 8), torch.float32, seed) for seed in range(256)
    ]
    tables, first = [], 0
    for d in drawn:
        count = num_pages(d.asked)
        tables.append([first + page for page in ORDERS[order](count)])
        first += 2 * count + 2
    expected = torch.cat([d.exact for d in drawn])
    assert torch.allclose(attend(drawn, tables).double(), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_cache_holds_what_was_stored_exactly(dtype: torch.dtype) -> None:
    drawn = Drawn(Asked(8, 1, (0,)), (2, 2, 4), dtype)
    cache = filled_cache([drawn], [[0, 1, 2]])
    assert cache.keys.dtype is cache_dtype(dtype, CPU)
    assert torch.equal(cache.keys[0, :, :9].transpose(0, 1).to(dtype), drawn.keys)
    assert torch.equal(cache.values[0, :, :9].transpose(0, 1).to(dtype), drawn.values)


def test_other_devices_keep_the_type_of_the_model() -> None:
    assert cache_dtype(torch.bfloat16, torch.device("cuda")) is torch.bfloat16
    assert cache_dtype(torch.bfloat16, CPU) is torch.float32
