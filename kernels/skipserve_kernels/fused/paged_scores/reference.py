"""The meaning of how much a row attends to each row of its sequence, in float32."""

import math

from torch import Tensor


def paged_scores(query: Tensor, keys: Tensor) -> Tensor:
    """Return the mean over heads of the softmax of a row's scores, [N] float32.

    Args:
        query: of the row, [H, C].
        keys: of the rows of its sequence, [N, K, C]; H is a multiple of K.
    """
    num_heads, head_size = query.shape
    keys = keys.float().repeat_interleave(num_heads // keys.shape[1], dim=1)
    scores = (keys * query.float()).sum(dim=-1) / math.sqrt(head_size)
    return scores.softmax(dim=0).mean(dim=1)
