"""What launches are given alike, whatever they compute: rows, and memory that programs share."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Selection:
    """N of the T rows of a forward; entry i of a *compact* tensor [N, ...] is the row `index[i]`.

    Gates are for captured graphs, whose launches are frozen: a row whose gate says no is neither
    read nor written, and a program without a row that takes part ends at once.

    Attributes:
        num_rows: N, at least 1.
        index: the rows, [N] int64, distinct; None where entry i is row i.
        gates: what each entry takes part in, as bits, [N] int64; None where all take part.
    """

    num_rows: int
    index: Tensor | None = None
    gates: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Scratch:
    """Room for the parts of results that several programs compute together.

    Launches of one stream share it, each on its own turn.

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


@dataclass(frozen=True, slots=True)
class Launch:
    """Which rows a launch works on, and what its programs share.

    Attributes:
        selection: which rows.
        scratch: as much as `scratch_sizes` of the operation says.
        bits: with gates, which entries take part: those with one of these bits.
    """

    selection: Selection
    scratch: Scratch
    bits: int = 0
