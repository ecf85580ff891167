"""Which rows go on between two segments of a forward: known beforehand, or ranked on the device.

How many there are is known to the host in any case, so nothing waits for the device.
Shapes: T rows of the segment before, U rows of the one behind, D hidden.
"""

from dataclasses import dataclass, field

from torch import Tensor

from skipserve_policies.narrowing import Narrowing


@dataclass(eq=False)
class WaitingRows:
    """Rows of a sequence that have come as far as its ranking and wait for the prompt's last row.

    Attributes:
        pieces: those of each chunk, [N, D], in order.
    """

    pieces: list[Tensor] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """How many they are."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True, eq=False)
class Stop:
    """Rows of the segment before that go no further in this forward.

    Attributes:
        rows: the first of them, and the one behind the last.
        waiting: where they are kept.
    """

    rows: tuple[int, int]
    waiting: WaitingRows


@dataclass(eq=False)
class Survivors:
    """What is left of a prompt, on the device; each ranking leaves less.

    Attributes:
        ids: the places in the whole prompt of the rows that are left, ascending, [N] int64.
        visual: which of them are visual and may leave, ascending, [V] int64.
    """

    ids: Tensor
    visual: Tensor


@dataclass(frozen=True, eq=False)
class Ranking:
    """A choice among the rows of one sequence.

    Attributes:
        narrowing: how they are ranked.
        layer: the block before which they leave.
        survivors: what was left before; what is left now when the ranking is done.
        num_visual: how many visual rows are left then.
        num_behind: rows of the prompt behind the last visual one.
        first: how many leading rows of the prompt were computed before, and have come this far.
        source: where the others are among the rows of the segment before and the waiting ones,
            [N - first] int64.
        slots: of keys and values, by the rows' places in the segment before, [N] int64.
        entering: rows of the segment behind, which are filled in: views of [U'] int64.
        positions: what these rows are turned by in the layers that follow, likewise; empty where
            that is known.
        chosen: takes the places in the whole prompt of the visual rows that are left, int64.
    """

    narrowing: Narrowing
    layer: int
    survivors: Survivors
    num_visual: int
    num_behind: int
    first: int
    source: Tensor
    slots: Tensor
    entering: Tensor
    positions: tuple[Tensor, ...]
    chosen: Tensor


@dataclass(frozen=True, eq=False)
class Handover:
    """Which rows go on.

    Attributes:
        entering: of each row of the segment behind, which row it was: of the T before, or behind
            these of the waiting ones; [U] int64, those of `rankings` to be filled in.
        returning: rows that have waited, in the order in which `entering` counts them.
        stops: rows that wait from now on.
        rankings: the choices that are made here.
        last_rows: of each sequence that is ranked by the attention of the layer before, its last
            row in the segment before, [R] int64; None where there are none. In the order of
            `rankings`.
    """

    entering: Tensor
    returning: tuple[WaitingRows, ...] = ()
    stops: tuple[Stop, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    last_rows: Tensor | None = None
