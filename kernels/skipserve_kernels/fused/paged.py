"""Keys and values in pages, as the kernels store and read them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PagedKeyValues:
    """The keys and values of one layer, and where the rows of a forward find and leave theirs.

    T rows of B sequences, K key/value heads, C head size, S slots, W pages at most of a sequence, P
    positions.

    Attributes:
        keys: of all sequences, [S, K, C], contiguous.
        values: of all sequences, [S, K, C], contiguous.
        page_size: slots of a page, a power of two; those of page p are from p * page_size on.
        tables: the pages of each sequence in order, [B, W] int64; what lies behind its last is not
            read.
        positions: of the rows in their sequences, [T] int64; -1 for a row without one, whose query
            and key are zero and which attends to nothing. Queries and keys are turned by them, and
            attention reads the slots up to them: where some rows of a sequence are not stored, it
            is given their places among those that are.
        slots: where the rows' own keys and values go, [T] int64; -1 where they go nowhere.
        factors: cosine and sine of each position, by which queries and keys are turned, float32,
            [P, 2, C / 2].
    """

    keys: Tensor
    values: Tensor
    page_size: int
    tables: Tensor
    positions: Tensor
    slots: Tensor
    factors: Tensor

    def check_attention(self, query: Tensor, out: Tensor) -> None:
        """Check what attention takes for granted, for queries [N, H, C] and out [N, H * C]."""
        assert query.is_contiguous()
        assert self.keys.is_contiguous()
        assert self.values.is_contiguous()
        assert self.keys.shape == self.values.shape
        assert query.shape[2] == self.keys.shape[2]
        assert query.shape[1] % self.keys.shape[1] == 0
        assert query.dtype is self.keys.dtype is self.values.dtype
        assert out.shape == (query.shape[0], query.shape[1] * query.shape[2])
        assert self.tables.stride(1) == out.stride(1) == 1
        size = self.page_size
        assert size & (size - 1) == 0, f"a page of {size} is no power of two"

    def check_projection(self, num_heads: int, head_size: int) -> None:
        """Check what storing takes for granted, given K and C."""
        assert self.keys.shape[1:] == self.values.shape[1:] == (num_heads, head_size)
        assert self.keys.is_contiguous()
        assert self.values.is_contiguous()
        assert self.factors.shape[1:] == (2, head_size // 2)
        assert self.factors.is_contiguous()
