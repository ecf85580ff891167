"""Random keys in pages and queries of one row a sequence, for the tests."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skipserve_kernels.fused.paged_decode.inputs import Pages, make_pages


@dataclass(frozen=True, slots=True)
class Inputs:
    """One row of each of B sequences, and all rows of these.

    Attributes:
        query: [B, H, C].
        pages: of the sequences.
        slots: of their keys, sequence by sequence, [N] int64.
        starts: the first row of each sequence, and N, [B + 1] int64.
    """

    query: Tensor
    pages: Pages
    slots: Tensor
    starts: Tensor

    @property
    def longest(self) -> int:
        """Rows of the longest sequence."""
        return max(self.pages.lengths)

    def only(self, sequence: int) -> "Inputs":
        """Return one of the sequences, with the keys of all."""
        first, last = self.starts[sequence : sequence + 2].tolist()
        return Inputs(
            query=self.query[sequence : sequence + 1],
            pages=self.pages,
            slots=self.slots[first:last],
            starts=self.starts.new_tensor([0, last - first]),
        )


def make_inputs(
    lengths: Sequence[int],
    *,
    num_heads: int,
    num_kv_heads: int,
    head_size: int,
    page_size: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Inputs:
    """Return sequences of these lengths."""
    pages = make_pages(
        lengths,
        num_heads=num_kv_heads,
        head_size=head_size,
        page_size=page_size,
        dtype=dtype,
        device=device,
    )
    generator = torch.Generator(device).manual_seed(1)
    shape = (len(lengths), num_heads, head_size)
    query = torch.randn(shape, generator=generator, device=device).to(dtype)
    slots = torch.cat([pages.slots(sequence) for sequence in range(len(lengths))])
    starts = torch.tensor([0, *lengths], device=device).cumsum(0)
    return Inputs(query, pages, slots, starts)
