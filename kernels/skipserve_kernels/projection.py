"""A linear layer as a checkpoint has it."""

from typing import NamedTuple

from torch import Tensor


class Projection(NamedTuple):
    """One linear layer.

    Attributes:
        weight: [M, N].
        bias: [M], or None.
    """

    weight: Tensor
    bias: Tensor | None = None
