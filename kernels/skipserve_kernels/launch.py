"""What launches are given alike, whatever they compute."""

from dataclasses import dataclass

from skipserve_kernels.scratch import Scratch
from skipserve_kernels.selection import Selection


@dataclass(frozen=True, slots=True)
class Launch:
    """Which rows a launch works on, and what its programs share.

    Attributes:
        selection: which rows.
        scratch: for results that several programs compute together; as much as `scratch_sizes` of
            the operation says.
        bits: with gates, which entries take part: those with one of these bits.
    """

    selection: Selection
    scratch: Scratch
    bits: int = 0
