"""Which rows a kernel works on, and where it leaves them.

T rows of a forward, N rows of a selection.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Selection:
    """N rows of a forward; entry i of a *compact* tensor [N, ...] belongs to the row `index[i]`.

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
