"""Room for the parts of results that several programs compute together."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory that launches of one stream share, each on its own turn.

    Attributes:
        parts: float32, flat; holds nothing between launches.
        arrivals: int32, flat; all zero between launches.
    """

    parts: Tensor
    arrivals: Tensor

    @classmethod
    def empty(cls, num_parts: int, num_arrivals: int, device: torch.device) -> Self:
        """Return room for so many numbers and counters."""
        return cls(
            parts=torch.empty(num_parts, dtype=torch.float32, device=device),
            arrivals=torch.zeros(num_arrivals, dtype=torch.int32, device=device),
        )
