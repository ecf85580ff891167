"""What the vision tower shows of pictures to whoever chooses among their rows.

Shapes: N pictures, P patches, T rows of the tower (the patches, behind the class token's row where
there is one), E the width of a feature, H heads of the tower, C their size.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from skipserve_policies.sizes import VisionSizes


@dataclass(frozen=True)
class Seen:
    """What a batch of pictures is chosen by.

    Attributes:
        states: the tower's rows where the features are taken, [N, T, E].
        queries, keys: of its last block, not scaled, [N, T, H C].
        num_heads: H.
        num_leading: rows before the patches, 0 or 1.
    """

    states: Tensor
    queries: Tensor
    keys: Tensor
    num_heads: int
    num_leading: int

    @classmethod
    def of_tower(cls, states: Tensor, found: "Watched", vision: VisionSizes) -> Self:
        """Return what a tower shows of pictures whose last block's attention was watched."""
        assert found.queries is not None
        assert found.keys is not None
        return cls(states, found.queries, found.keys, vision.num_heads, int(vision.has_cls))

    @property
    def patches(self) -> Tensor:
        """The features of the patches, [N, P, E]."""
        return self.states[:, self.num_leading :]

    @property
    def class_states(self) -> Tensor:
        """The features of the class token, [N, 1, E]."""
        return self.states[:, :1]

    def class_attention(self) -> Tensor:
        """Return how much the class token's row attends to each patch, over all heads, [N, P]."""
        keys = self._heads(self.keys).transpose(1, 2)
        query = self._heads(self.queries[:, :1]).transpose(1, 2)
        scores = (query @ keys.transpose(2, 3)).squeeze(2) / math.sqrt(keys.shape[-1])
        return scores.softmax(dim=-1).mean(dim=1)[:, self.num_leading :]

    def patch_keys(self) -> Tensor:
        """Return the keys of the patches, their mean over the heads, float32 [N, P, C]."""
        return self._heads(self.keys[:, self.num_leading :]).mean(dim=2)

    def _heads(self, x: Tensor) -> Tensor:
        """Return rows [N, T, H C] by head in float32, [N, T, H, C]."""
        return x.float().view(*x.shape[:2], self.num_heads, -1)

    def of(self, places: Sequence[int]) -> Self:
        """Return what is seen of some of the pictures."""
        chosen = list(places)
        return type(self)(
            self.states[chosen],
            self.queries[chosen],
            self.keys[chosen],
            self.num_heads,
            self.num_leading,
        )


@dataclass
class Watched:
    """What the attention of a block has projected."""

    queries: Tensor | None = None
    keys: Tensor | None = None


@contextmanager
def watched(attention: Any) -> Iterator[Watched]:
    """Note the queries and keys that an attention of transformers' projects meanwhile."""
    found = Watched()

    def note_queries(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        found.queries = output

    def note_keys(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        found.keys = output

    hooks = (
        attention.q_proj.register_forward_hook(note_queries),
        attention.k_proj.register_forward_hook(note_keys),
    )
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
