"""The post-norm form, OPT-350M's: parts are fed what there is, and each sum is normalised."""

from dataclasses import dataclass

import torch
from torch import Tensor

from skipserve.model.plain.attention import Attention, Factors
from skipserve.model.plain.ffn import Ffn
from skipserve.model.plain.norm import Norm
from skipserve.model.plain.rows import BlockRows
from skipserve.model.work import put, take
from skipserve_kernels.key_values import KeyValues


@dataclass(frozen=True, slots=True)
class NormedAttention:
    """Attention whose sum with the residual stream is normalised; rows without it pass as is."""

    attention: Attention
    norm: Norm

    def add(self, hidden: Tensor, block: BlockRows, cache: KeyValues) -> Tensor:
        """Store keys and values; return `hidden` [T, D] with the attention added, normalised."""
        added, rows = self.attention.add(hidden, block, cache), block.rows.attention
        return put(added, rows, self.norm(take(added, rows)))

    def queries(self, hidden: Tensor, factors: Factors, dtype: torch.dtype) -> Tensor:
        """Return the queries of rows [R, D], in the cache's type, [R, H, C]."""
        return self.attention.queries(hidden, factors, dtype)

    def keys(self, hidden: Tensor, factors: Factors, dtype: torch.dtype) -> Tensor:
        """Return the keys of rows [R, D], in the cache's type, [R, K, C]."""
        return self.attention.keys(hidden, factors, dtype)


@dataclass(frozen=True, slots=True)
class NormedFfn:
    """An FFN whose sum with the residual stream is normalised."""

    ffn: Ffn
    norm: Norm

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return `residual` with the output for x added to it, normalised; [T, D] each."""
        return self.norm(self.ffn.add(x, residual))
