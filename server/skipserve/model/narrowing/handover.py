"""Which rows go on between two segments of a forward: known beforehand, or ranked on the device.

How many there are is known to the host in any case, so nothing waits for the device.
Shapes: T rows of the segment before, U rows of the one behind, D hidden.
"""

from dataclasses import dataclass, field

from torch import Tensor

from skipserve_policies.narrowing import Departure, Narrowing

# Fates of rows where some are merged; others are the numbers of merged rows, from 1.
GONE, STAYS = -1, 0


@dataclass(eq=False)
class WaitingRows:
    """Rows of a sequence that have come as far as its ranking and wait for the prompt's last row.

    Attributes:
        pieces: those of each chunk, [N, D], in order.
        embedded: what entered the first block of those that its ranking compares so, [N, D] each.
        asking: what entered the block before of those that rank by its attention, [N, D] each.
    """

    pieces: list[Tensor] = field(default_factory=list)
    embedded: list[Tensor] = field(default_factory=list)
    asking: list[Tensor] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """How many they are."""
        return sum(map(len, self.pieces))

    def clear(self) -> None:
        """Let go of them."""
        self.pieces.clear()
        self.embedded.clear()
        self.asking.clear()


@dataclass(frozen=True)
class Looks:
    """Which rows a choice looks at of those that a forward has held for it; a range each.

    Attributes:
        embedded: of what entered the first block.
        asking: of what entered the block before the rows leave.
    """

    embedded: tuple[int, int] = (0, 0)
    asking: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Held:
    """Rows that a forward holds for the choices in it.

    Attributes:
        embedded: what entered the first block, [E, D]; None where no choice looks at that.
        asking: what entered the last block of a segment, [R, D]; None likewise.
    """

    embedded: Tensor | None = None
    asking: Tensor | None = None

    def embedded_of(self, looks: Looks) -> Tensor:
        """Return those of a choice that entered the first block, [N, D]."""
        assert self.embedded is not None
        return self.embedded[slice(*looks.embedded)]

    def asking_of(self, looks: Looks) -> Tensor:
        """Return those of a choice that entered the block before, [N, D]."""
        assert self.asking is not None
        return self.asking[slice(*looks.asking)]


@dataclass(frozen=True, eq=False)
class Stop:
    """Rows of the segment before that go no further in this forward.

    Attributes:
        rows: the first of them, and the one behind the last.
        waiting: where they are kept.
        looks: what is kept for the choice besides.
    """

    rows: tuple[int, int]
    waiting: WaitingRows
    looks: Looks = Looks()


@dataclass(eq=False)
class Survivors:
    """What is left of a prompt, on the device; each ranking leaves less.

    Attributes:
        ids: the places in the whole prompt of the rows that are left, ascending but for merged
            ones, which have that of the first visual row there was, [N] int64.
        visual: which of them are visual and may leave, ascending, [V] int64.
        raters: which rows behind the images rank those of the images, [S] bool; None before that
            is found, or where none do.
    """

    ids: Tensor
    visual: Tensor
    raters: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Ranking:
    """A choice among the rows of one sequence.

    Attributes:
        narrowing: how they are ranked.
        layer: the block before which they leave.
        survivors: what was left before; what is left now when the ranking is done.
        leaving: how many visual rows go on, as they are or merged.
        num_behind: rows of the prompt behind the last visual one.
        first: how many leading rows of the prompt were computed before, and have come this far.
        source: where the others are among the rows of the segment before and the waiting ones,
            [N - first] int64.
        slots: of keys and values, by the rows' places in the segment before, [N] int64.
        waiting: what was kept of the prompt's earlier rows.
        looks: what the choice looks at besides.
        merged_from: where merged rows are among those that enter the segment behind.
        entering: rows of the segment behind, which are filled in: views of [U'] int64.
        positions: what these rows are turned by in the layers that follow, likewise; empty where
            that is known.
        chosen: takes the places in the whole prompt of the visual rows that are left, int64; or
            where rows are merged, the fate of each visual row that there was: GONE, STAYS, or the
            number of the merged row that it went into, from 1.
        is_settled: whether `chosen` says it already: what was chosen before is done again.
    """

    narrowing: Narrowing
    layer: int
    survivors: Survivors
    leaving: Departure
    num_behind: int
    first: int
    source: Tensor
    slots: Tensor
    waiting: WaitingRows
    looks: Looks
    merged_from: int
    entering: Tensor
    positions: tuple[Tensor, ...]
    chosen: Tensor
    is_settled: bool = False


@dataclass(frozen=True, eq=False)
class Handover:
    """Which rows go on.

    Attributes:
        entering: of each row of the segment behind, which row it was: of the T before, behind these
            of the waiting ones, or of the merged ones behind those; [U] int64, those of `rankings`
            to be filled in.
        returning: rows that have waited, in the order in which `entering` counts them.
        stops: rows that wait from now on.
        rankings: the choices that are made here.
        asking: the rows of the segment before by whose attention in its last block others are
            ranked, [R] int64; None where there are none.
    """

    entering: Tensor
    returning: tuple[WaitingRows, ...] = ()
    stops: tuple[Stop, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    asking: Tensor | None = None
