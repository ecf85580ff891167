"""Random keys and values in pages, for the tests of attention over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skipserve_kernels.fused.paged import PagedKeyValues

# An id that no table of pages may hold: whoever uses it reads far out of bounds.
_NO_PAGE = 2**40


@dataclass(frozen=True, slots=True)
class Pages:
    """The keys and values of several sequences, in pages that lie in no order.

    Attributes:
        keys: [S, K, C]; NaN where no sequence has a key.
        values: [S, K, C]; likewise.
        tables: the pages of each sequence, [B, W] int64; no ids of pages behind its last.
        lengths: keys of each sequence.
        page_size: slots of a page.
    """

    keys: Tensor
    values: Tensor
    tables: Tensor
    lengths: tuple[int, ...]
    page_size: int

    def seen_from(self, positions: Tensor) -> PagedKeyValues:
        """Return them as the kernels are told of them, for rows that store nothing."""
        return PagedKeyValues(
            keys=self.keys,
            values=self.values,
            page_size=self.page_size,
            tables=self.tables,
            positions=positions,
            slots=torch.full_like(positions, -1),
            factors=self.keys.new_empty(0, 2, self.keys.shape[2] // 2, dtype=torch.float32),
        )

    def of(self, sequence: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of one sequence in order, [length, K, C] each."""
        slots = self.slots(sequence)
        return self.keys[slots], self.values[slots]

    def slots(self, sequence: int) -> Tensor:
        """Return where the keys of one sequence lie, [length] int64."""
        positions = torch.arange(self.lengths[sequence], device=self.tables.device)
        pages = self.tables[sequence][positions // self.page_size]
        return pages * self.page_size + positions % self.page_size


def make_pages(
    lengths: Sequence[int],
    *,
    num_heads: int,
    head_size: int,
    page_size: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Pages:
    """Return sequences of these lengths, with `num_heads` heads of keys and of values."""
    generator = torch.Generator(device).manual_seed(0)
    counts = [-(-length // page_size) for length in lengths]
    free = torch.randperm(sum(counts) + 2, generator=generator, device=device)
    tables = torch.full((len(lengths), max(counts) + 1), _NO_PAGE, device=device)
    for table, pages in zip(tables, torch.split(free, [*counts, 2]), strict=False):
        table[: len(pages)] = pages
    shape = (len(free) * page_size, num_heads, head_size)
    room = torch.full((2, *shape), torch.nan, dtype=dtype, device=device)
    result = Pages(room[0].clone(), room[1].clone(), tables, tuple(lengths), page_size)
    for sequence, length in enumerate(lengths):
        for numbers in (result.keys, result.values):
            shape = (length, num_heads, head_size)
            new = torch.randn(shape, generator=generator, device=device)
            numbers[result.slots(sequence)] = new.to(dtype)
    return result
