"""The launches that the kernels are made for, at real models' sizes, on tensors without memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from skipserve_kernels.fused.input_projection.packing import InputWeights, Part
from skipserve_kernels.fused.input_projection.triton import (
    Bits,
    Normed,
    Projected,
    input_projection,
)
from skipserve_kernels.fused.launch import Launch, Scratch, Selection
from skipserve_kernels.fused.norm_rows.triton import Target, norm_rows
from skipserve_kernels.fused.output_projection.triton import output_projection
from skipserve_kernels.fused.paged import PagedKeyValues
from skipserve_kernels.fused.paged_decode.triton import paged_decode
from skipserve_kernels.fused.paged_prefill.triton import paged_prefill
from skipserve_kernels.fused.paged_scores.triton import paged_scores
from skipserve_kernels.fused.tiles import ROW_BUCKETS
from skipserve_kernels.projection import Projection

PAGE_SIZE = 16
# So many rows share the keys of a sequence among 8, 4, 2 and 1 programs, with 32 and 40 heads.
DECODE_ROWS = (1, 2, 4, 8)
_NUM_SLOTS = 2**16
_NUM_POSITIONS = 4096


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one layer and the type of its numbers."""

    num_heads: int
    num_kv_heads: int
    head_size: int
    ffn: int
    dtype: torch.dtype

    @property
    def query(self) -> int:
        """The width of the queries of a row, which is that of the residual stream here."""
        return self.num_heads * self.head_size


LLAVA_7B = Sizes(32, 32, 128, 11008, torch.bfloat16)
LLAVA_13B = Sizes(40, 40, 128, 13824, torch.bfloat16)
# Of LLaVA-1.6 on Mistral: four query heads share keys and values.
GROUPED = Sizes(32, 8, 128, 14336, torch.float16)
WIDE_7B = replace(LLAVA_7B, dtype=torch.float32)
DEMO = Sizes(4, 4, 32, 352, torch.float32)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a selection, which are all of the forward.

    Attributes:
        num: how many.
        is_gated: whether some may take no part.
        is_picked: whether they come by index.
        offset: at which number of a common array the numbers of the rows begin.
        table_width: pages that a page table has room for.
        bits: what a launch is, for gates.
    """

    num: int
    is_gated: bool = False
    is_picked: bool = False
    offset: int = 0
    table_width: int = 64
    bits: int = 1

    def __str__(self) -> str:
        """Name what is particular."""
        gates, index = " gates" * self.is_gated, " index" * self.is_picked
        return f"rows={self.num}{gates}{index}"

    @property
    def selection(self) -> Selection:
        """The selection of all rows."""
        index = self.numbers(self.num) if self.is_picked else None
        gates = self.numbers(self.num) if self.is_gated else None
        return Selection(self.num, index, gates)

    @property
    def launch(self) -> Launch:
        """The launch of all rows, with more scratch memory than any needs: it takes no memory."""
        scratch = Scratch.empty(2**26, 2**20, torch.device("meta"))
        return Launch(self.selection, scratch, self.bits)

    def numbers(self, *shape: int) -> Tensor:
        """Return int64 numbers as they lie in a common array: not always 16 bytes aligned."""
        flat = _empty(self.offset + torch.Size(shape).numel(), dtype=torch.int64)
        return flat[self.offset :].view(shape)


@dataclass(frozen=True, slots=True)
class Launches:
    """Launches the kernels of one layer."""

    sizes: Sizes

    def norm(self, rows: Rows, num_targets: int) -> None:
        """Normalise rows under one to three gains."""
        gain = self._empty(self.sizes.query)
        target = Target(gain, self._empty(rows.num, self.sizes.query), rows.bits)
        places = rows.numbers(rows.num) if rows.is_picked else None
        x = self._empty(rows.num, self.sizes.query)
        norm_rows(x, [target] * num_targets, 1e-5, rows.selection, places)

    def input(self, rows: Rows, part: Part, *, is_shared: bool = False) -> None:
        """Project normed rows; is_shared: attention and FFN have one input."""
        sizes = self.sizes
        num_columns = (sizes.num_heads + 2 * sizes.num_kv_heads) * sizes.head_size + 2 * sizes.ffn
        normed = self._empty(rows.num, sizes.query)
        input_projection(
            InputWeights(
                self._empty(num_columns, sizes.query),
                None,
                sizes.num_heads,
                sizes.num_kv_heads,
                sizes.head_size,
                sizes.ffn,
            ),
            part,
            rows.selection,
            Normed(normed, normed if is_shared else self._empty(rows.num, sizes.query)),
            Projected(self._empty(rows.num, sizes.query), self._both(rows)[:, sizes.query :]),
            self._paged(rows, rows.num),
            Bits(rows.bits, rows.bits, rows.bits),
        )

    def decode(self, rows: Rows) -> None:
        """Attend from one row a sequence."""
        paged_decode(
            self._empty(rows.num, self.sizes.num_heads, self.sizes.head_size),
            self._paged(rows, rows.num),
            self._both(rows)[:, : self.sizes.query],
            rows.launch,
        )

    def prefill(self, rows: Rows) -> None:
        """Attend from many rows a sequence."""
        paged_prefill(
            self._empty(rows.num, self.sizes.num_heads, self.sizes.head_size),
            self._paged(rows, 3),
            self._both(rows)[:, : self.sizes.query],
            rows.selection,
            rows.numbers(3, 3),
        )

    def scores(self, rows: Rows) -> None:
        """Score all rows of three sequences by one row of each."""
        sizes = self.sizes
        paged_scores(
            self._empty(3, sizes.num_heads, sizes.head_size),
            self._empty(_NUM_SLOTS, sizes.num_kv_heads, sizes.head_size),
            rows.numbers(rows.num),
            rows.numbers(4),
            longest=rows.num,
        )

    def output(self, rows: Rows, part: Part, *, has_bias: bool = False) -> None:
        """Project what belongs to a part: attention's result, the FFN's, or both at once."""
        width = self.sizes.query
        start = width if part is Part.FFN else 0
        stop = width if part is Part.QUERY_KEY_VALUE else width + self.sizes.ffn
        output_projection(
            self._both(rows)[:, start:stop],
            Projection(
                self._empty(width, width + self.sizes.ffn)[:, start:stop],
                self._empty(width) if has_bias else None,
            ),
            self._empty(rows.num, width),
            rows.launch,
        )

    def _paged(self, rows: Rows, num_sequences: int) -> PagedKeyValues:
        sizes = self.sizes
        pool = self._empty(_NUM_SLOTS, sizes.num_kv_heads, sizes.head_size)
        return PagedKeyValues(
            keys=pool,
            values=pool,
            page_size=PAGE_SIZE,
            tables=rows.numbers(num_sequences, rows.table_width),
            positions=rows.numbers(rows.num),
            slots=rows.numbers(rows.num),
            factors=_empty(_NUM_POSITIONS, 2, sizes.head_size // 2, dtype=torch.float32),
        )

    def _both(self, rows: Rows) -> Tensor:
        """Return attention's result and the FFN's beside each other."""
        return self._empty(rows.num, self.sizes.query + self.sizes.ffn)

    def _empty(self, *shape: int) -> Tensor:
        return _empty(*shape, dtype=self.sizes.dtype)


def _empty(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def typical_launches(sizes: Sizes) -> Mapping[str, Callable[[], None]]:
    """Return one launch, by name, for each tile and each number of splits, and of each kernel."""
    launches = Launches(sizes)
    few = [Rows(bucket) for bucket in ROW_BUCKETS]
    many = Rows(640)
    return (
        {f"input ALL {rows}": partial(launches.input, rows, Part.ALL) for rows in few}
        | {f"output ALL {rows}": partial(launches.output, rows, Part.ALL) for rows in few}
        | {f"decode {rows}": partial(launches.decode, rows) for rows in map(Rows, DECODE_ROWS)}
        | {f"norm {many}": partial(launches.norm, many, num_targets=2)}
        | {f"input ALL {many}": partial(launches.input, many, Part.ALL, is_shared=True)}
        | {f"prefill {many}": partial(launches.prefill, many)}
        | {f"scores {many}": partial(launches.scores, many)}
    )


def other_launches(sizes: Sizes) -> Mapping[str, Callable[[], None]]:
    """Return launches, by name, of parts of a layer with some of the rows."""
    launches = Launches(sizes)
    picked, gated = Rows(640, is_picked=True), Rows(16, is_gated=True)
    forms = [picked] + [replace(rows, num=num) for num in ROW_BUCKETS for rows in (picked, gated)]
    found: dict[str, Callable[[], None]] = {}
    for rows, part in product(forms, (Part.QUERY_KEY_VALUE, Part.FFN)):
        found[f"input {part.name} {rows}"] = partial(launches.input, rows, part)
        found[f"output {part.name} {rows}"] = partial(launches.output, rows, part)
    for part in (Part.QUERY, Part.KEY_VALUE):
        found[f"input {part.name} {gated}"] = partial(launches.input, gated, part)
    for num in DECODE_ROWS:
        rows = replace(gated, num=num)
        found[f"decode {rows}"] = partial(launches.decode, rows)
    for rows, num_targets in product((picked, gated), (1, 3)):
        found[f"norm {num_targets} {rows}"] = partial(launches.norm, rows, num_targets)
    return found | {f"prefill {picked}": partial(launches.prefill, picked)}
