"""Random inputs of attention, for its test."""

import torch
from torch import Tensor


def make_inputs(
    num_queries: int,
    num_keys: int,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_size: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries [Q, H, C], keys [N, K, C] and values [N, K, C] of one sequence."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(num_queries, num_heads, head_size, generator=generator)
    keys = torch.randn(num_keys, num_kv_heads, head_size, generator=generator)
    values = torch.randn(num_keys, num_kv_heads, head_size, generator=generator)
    return query.to(dtype), keys.to(dtype), values.to(dtype)
