"""Causal attention of many rows a sequence over its pages."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from paged_attention import assert_attends, make_query
from torch import Tensor
from triton_interpreter import shuffled, traffic

from skipserve_kernels.fused.input_projection.inputs import Sizes
from skipserve_kernels.fused.launch import Selection
from skipserve_kernels.fused.paged_decode.inputs import Pages, make_pages
from skipserve_kernels.fused.paged_prefill.spans import find_spans
from skipserve_kernels.fused.paged_prefill.triton import paged_prefill
from skipserve_kernels.fused.tiles import MAX_FUSED_ROWS, Tile, architecture, prefill_tile

pytestmark = pytest.mark.kernels

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CPU = torch.device("cpu")
TILE = Tile(rows=16, columns=16, depth=0, num_warps=4, num_stages=1)
# Positions of the entries of each sequence: some edges are those of pages of 4 and of tiles.
CASES: dict[str, list[range | list[int]]] = {
    "first token": [range(1)],
    "whole prompt": [range(40)],
    "edges": [range(4), range(5), range(16), range(17), range(14, 20), range(15, 20)],
    "chunk behind a cached prefix": [range(37, 61)],
    "prefix of whole tiles": [range(32, 48)],
    "several sequences": [range(3), [], range(20, 45), range(18), [31]],
    "some rows": [[0, 3, 4, 17], [2, 30, 31, 47, 50]],
}


class Asked:
    """Entries of several sequences, and the keys that they see."""

    def __init__(
        self,
        positions: Sequence[Sequence[int]],
        heads: tuple[int, int] = (2, 1),
        head_size: int = 32,
        page_size: int = 4,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device = CPU,
    ) -> None:
        self.counts = np.array([len(each) for each in positions], dtype=np.int64)
        self.sequences = [b for b, each in enumerate(positions) for _ in each]
        self.positions = [position for each in positions for position in each]
        self.pages: Pages = make_pages(
            [max(each, default=-1) + 1 for each in positions],
            num_heads=heads[1],
            head_size=head_size,
            page_size=page_size,
            dtype=dtype,
            device=device,
        )
        self.query = make_query(len(self.positions), heads[0], self.pages)

    def on_device(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self.query.device)

    def spans(self, tile: Tile) -> Tensor:
        return torch.from_numpy(find_spans(self.counts, tile.rows)).to(self.query.device)


def attend(
    asked: Asked,
    *,
    positions: Tensor | None = None,
    index: Tensor | None = None,
    spans: Tensor | None = None,
    out: Tensor | None = None,
    tile: Tile | None = TILE,
) -> Tensor:
    out = torch.full_like(asked.query.flatten(1), torch.nan) if out is None else out
    paged_prefill(
        asked.query,
        asked.pages.seen_from(asked.on_device(asked.positions) if positions is None else positions),
        out,
        Selection(len(asked.query), index),
        asked.spans(tile or TILE) if spans is None else spans,
        tile,
    )
    return out


@pytest.mark.parametrize(
    ("heads", "dtype"),
    [((2, 2), torch.float32), ((4, 2), torch.bfloat16), ((4, 1), torch.float16)],
    ids=str,
)
@pytest.mark.parametrize("case", CASES)
def test_rows_see_what_precedes_them(
    case: str, heads: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> None:
    asked = Asked(CASES[case], heads, dtype=dtype, device=device)
    assert_attends(attend(asked), asked.query, asked.pages, asked.sequences, asked.positions)


@pytest.mark.fast
@pytest.mark.parametrize("case", ["chunk behind a cached prefix", "some rows"])
def test_rows_see_what_precedes_them_in_short(case: str, device: torch.device) -> None:
    asked = Asked(CASES[case], device=device)
    assert_attends(attend(asked), asked.query, asked.pages, asked.sequences, asked.positions)


@pytest.mark.parametrize("page_size", [4, 16, 64])
def test_pages_may_be_smaller_or_larger_than_tiles(page_size: int, device: torch.device) -> None:
    positions = [range(150, 170), range(20)]
    asked = Asked(positions, page_size=page_size, dtype=torch.float32, device=device)
    assert_attends(attend(asked), asked.query, asked.pages, asked.sequences, asked.positions)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_size", [16, 64, 128, 256])
def test_the_tables_own_tile(head_size: int, dtype: torch.dtype, device: torch.device) -> None:
    check_own_tile(Asked([range(100, 250), range(3)], (1, 1), head_size, 16, dtype, device))


def test_the_sizes_of_a_model(block: Sizes, row_counts: list[int], device: torch.device) -> None:
    """A whole prompt and, behind cached keys, the rest of another."""
    for num_rows in (count for count in row_counts if count > MAX_FUSED_ROWS):
        positions = [range(num_rows), range(num_rows // 3, num_rows)]
        heads = block.heads, block.kv_heads
        check_own_tile(Asked(positions, heads, block.head, 16, torch.bfloat16, device))


def check_own_tile(asked: Asked) -> None:
    tile = prefill_tile(asked.query.dtype, architecture(asked.query.device))
    out = attend(asked, spans=asked.spans(tile), tile=None)
    assert_attends(out, asked.query, asked.pages, asked.sequences, asked.positions)


def test_entries_are_the_rows_of_the_index(device: torch.device) -> None:
    asked = Asked(CASES["several sequences"], device=device)
    rows = torch.arange(89, -1, -1, device=device)[: len(asked.positions)]
    positions = torch.full((90,), 2**40, device=device)
    positions[rows] = asked.on_device(asked.positions)
    assert torch.equal(attend(asked, positions=positions, index=rows), attend(asked))


@pytest.mark.fast
def test_a_row_without_keys_gives_zeros(device: torch.device) -> None:
    asked = Asked([[-1, -1, 19, 20], [-1], [5]], device=device)
    assert_attends(attend(asked), asked.query, asked.pages, asked.sequences, asked.positions)


@pytest.mark.fast
def test_entries_of_no_span_are_left_alone(device: torch.device) -> None:
    asked = Asked([range(3), range(20), range(9)], device=device)
    width = asked.query[0].numel()
    wide = torch.full((32, width + 24), 7.0, dtype=asked.query.dtype, device=device)
    attend(asked, spans=asked.spans(TILE)[1:-1], out=wide[:, :width])
    assert torch.equal(wide[3:23, :width], attend(asked)[3:23])
    wide[3:23, :width] = 7.0
    assert (wide == 7.0).all()


@pytest.mark.fast
def test_no_span_is_no_launch() -> None:
    asked = Asked([range(3)])
    out = attend(asked, spans=torch.empty((0, 3), dtype=torch.int64))
    assert out.isnan().all()


def test_neither_order_nor_company_matters() -> None:
    asked = Asked(CASES["several sequences"])
    first = attend(asked)
    with shuffled(0):
        assert torch.equal(attend(asked), first)
    for span in asked.spans(TILE):
        entries = slice(int(span[1]), int(span[1] + span[2]))
        assert torch.equal(attend(asked, spans=span[None])[entries], first[entries])


@pytest.mark.parametrize("page_size", [4, 64])
def test_a_span_reads_up_to_its_last_entry(page_size: int) -> None:
    # Spans end at positions 54, 59, 10 and 50.
    asked = Asked([range(39, 60), [8, 10], [0, 50]], (4, 2), 64, page_size)
    pages, spans, positions = asked.pages, asked.spans(TILE), torch.tensor(asked.positions)
    out = torch.empty_like(asked.query.flatten(1))
    with traffic(
        query=asked.query,
        keys=pages.keys,
        values=pages.values,
        tables=pages.tables,
        positions=positions,
        spans=spans,
        out=out,
    ) as moved:
        attend(asked, positions=positions, spans=spans, out=out)

    key_bytes = pages.keys[0, 0].nbytes
    for name in ("keys.load", "values.load"):
        assert moved.requested(name) == moved.sectors(name) == 4 * (55 + 60 + 11 + 51) * key_bytes
        assert moved.distinct(name) == 2 * (60 + 11 + 51) * key_bytes
    assert moved.requested("query.load") == asked.query.nbytes
    ideal = 2 * 2 * (60 + 11 + 51) * key_bytes + asked.query.nbytes + out.nbytes
    assert moved.total_distinct() <= 1.05 * ideal
    # Each head of a span reads an id once for all keys of a tile that lie in its page.
    step = min(page_size, TILE.columns)
    num_ids = 4 * sum(-(-length // step) for length in (55, 60, 11, 51))
    assert moved.requested("tables.load") == num_ids * pages.tables.itemsize
