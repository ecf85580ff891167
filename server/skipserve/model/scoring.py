"""Rows of a forward whose next token is known, and how probable the model finds that.

Shapes: S scored rows, V vocabulary, K alternatives.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skipserve.model.logprobs import RowLogprobs

# So many rows' logits are there at once: those of a whole prompt would fill gigabytes.
PIECE_ROWS = 64


@dataclass(frozen=True, eq=False)
class Scoring:
    """Rows of the last segment, and the tokens that follow them.

    Attributes:
        rows: the rows, [S] int64.
        token_ids: the tokens, [S] int64.
        num_top: K, how many alternatives are reported.
    """

    rows: Tensor
    token_ids: Tensor
    num_top: int
    _pieces: list[tuple[Tensor, ...]] = field(default_factory=list, init=False)

    def fill(self, logits_of: Callable[[Tensor], Tensor]) -> None:
        """Score the tokens, a few rows at a time.

        Args:
            logits_of: gives the logits, float32 [R, V], of rows [R].
        """
        for start in range(0, len(self.rows), PIECE_ROWS):
            rows, token_ids = (it[start : start + PIECE_ROWS] for it in (self.rows, self.token_ids))
            found = RowLogprobs.of(logits_of(rows), token_ids, self.num_top)
            ranks = found.ranks(token_ids)
            self._pieces.append((found.own, ranks, found.top_ids, found.top))

    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `fill` found.

        Returns:
            The log-probability of each token, [S] float32; its rank among all, from 1 on, [S]
            int64; the most probable tokens and their log-probabilities, [S, K].
        """
        own, ranks, top_ids, top = (torch.cat(parts) for parts in zip(*self._pieces, strict=True))
        return own, ranks, top_ids, top
