"""What attention over pages must give, entry by entry."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from kernel_errors import assert_as_exact_as, assert_near_reference
from torch import Tensor

from skipserve_kernels.fused.paged_decode.inputs import Pages
from skipserve_kernels.plain.attention import reference


def make_query(num_entries: int, num_heads: int, pages: Pages) -> Tensor:
    """Return random queries [N, H, C] for these keys."""
    device = pages.keys.device
    generator = torch.Generator(device).manual_seed(1)
    shape = (num_entries, num_heads, pages.keys.shape[2])
    return torch.randn(shape, generator=generator, device=device).to(pages.keys.dtype)


def assert_attends(
    out: Tensor, query: Tensor, pages: Pages, sequences: Sequence[int], positions: Sequence[int]
) -> None:
    """Check what each entry mixed of its sequence's keys up to its position; zeros without any.

    Args:
        out: what the kernel gave, [N, H * C].
        query: [N, H, C].
        pages: keys and values.
        sequences: of each entry.
        positions: of each entry; -1 has no keys.
    """
    plain, exact = torch.zeros_like(out), torch.zeros_like(out, dtype=torch.float64)
    meant = torch.zeros_like(out, dtype=torch.float32)
    for entry, (sequence, position) in enumerate(zip(sequences, positions, strict=True)):
        one = slice(entry, entry + 1)
        keys, values = (x[: position + 1] for x in pages.of(sequence))
        if position >= 0:
            plain[one] = _attend(query[one], keys, values)
            exact[one] = _attend(query[one].double(), keys.double(), values.double())
            last = torch.tensor([position], device=query.device)
            meant[one] = reference.attention(query[one], keys, values, last)
        else:
            assert (out[one] == 0).all()
    assert_near_reference(meant, exact)
    assert_as_exact_as(out, plain, exact)


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend to all keys [N, K, C] for queries [Q, H, C], as torch does."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1).transpose(0, 1) for x in (keys, values))
    mixed = F.scaled_dot_product_attention(query.transpose(0, 1), keys, values)
    return mixed.transpose(0, 1).flatten(1)
