"""The meaning of causal, grouped-query attention, in float32."""

import torch
from torch import Tensor


def attention(query: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """Attend for queries [Q, H, C] of one sequence at positions [Q] to its keys [N, K, C].

    Returns:
        [Q, H * C].
    """
    group = query.shape[1] // keys.shape[1]
    wide_keys = keys.float().repeat_interleave(group, dim=1)
    wide_values = values.float().repeat_interleave(group, dim=1)
    scores = torch.einsum("qhc,nhc->hqn", query.float(), wide_keys) * query.shape[-1] ** -0.5
    is_later = torch.arange(len(keys), device=keys.device) > positions[:, None]
    weights = scores.masked_fill(is_later, -torch.inf).softmax(-1)
    return torch.einsum("hqn,nhc->qhc", weights, wide_values).flatten(1)
