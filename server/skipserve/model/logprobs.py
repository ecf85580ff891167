"""Log-probabilities of rows of logits. Knows no request.

Shapes: R rows, V vocabulary, K alternatives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowLogprobs:
    """What a model makes of a token in each of R rows, and which ones it finds most probable.

    Attributes:
        all: the log-probability of every token, [R, V] float32.
        own: that of the row's token, [R].
        top_ids: the K most probable tokens, best first, among equals the lower id first, [R, K].
        top: theirs, [R, K].
    """

    all: Tensor
    own: Tensor
    top_ids: Tensor
    top: Tensor

    @classmethod
    def of(cls, logits: Tensor, token_ids: Tensor, num_top: int) -> "RowLogprobs":
        """Look at logits, float32 [R, V], and a token of each row, [R]; K is V at most."""
        logprobs = logits.log_softmax(dim=-1)
        own = logprobs.gather(1, token_ids[:, None])[:, 0]
        top_ids = _largest(logprobs, min(num_top, logits.shape[1]))
        return cls(logprobs, own, top_ids, logprobs.gather(1, top_ids))

    def ranks(self, token_ids: Tensor) -> Tensor:
        """Return the place of each row's token among all, from 1 on, in the order of `top_ids`."""
        own = self.own[:, None]
        is_lower_id = torch.arange(self.all.shape[1], device=own.device) < token_ids[:, None]
        return 1 + ((self.all > own) | ((self.all == own) & is_lower_id)).sum(dim=1)


def _largest(logprobs: Tensor, count: int) -> Tensor:
    """Return the ids of the `count` largest of each row, best first, [R, count].

    The id is a part of what is compared: which of equal tokens topk takes first depends on
    `count`, and so on the other rows.
    """
    # Of numbers that are not negative, the bits ascend as the numbers do.
    keys = logprobs.abs().view(torch.int32).long() << 32
    keys |= torch.arange(logprobs.shape[1], device=logprobs.device)
    return keys.topk(count, largest=False).values & (2**32 - 1)
