"""Which visual rows leave inside the decoder, and where: a rule, made concrete for a model."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from fractions import Fraction
from functools import cached_property
from itertools import groupby, pairwise

from skipserve_policies.plan import TokenClass
from skipserve_policies.schema import (
    Dropper,
    DropVisual,
    Positions,
    amount_of,
    layers_before,
)
from skipserve_policies.sizes import ModelSizes

# Dart's rows that others are likened to, at most: of the images, and behind them.
_NUM_PIVOTS = 4

# Sparsevlm's: of the rows that leave, the share that is merged, and how many make one row of it.
_MERGING_SHARE = Fraction(3, 10)
_ROWS_PER_CLUSTER = 10


class NarrowingMisfitError(ValueError):
    """A model has no such blocks, or not what a method needs; the message says what."""


@dataclass(frozen=True)
class Stage:
    """A block before which rows leave.

    Attributes:
        layer: the block.
        num_rows: how many visual rows of each image go on, in what the method calls that.
    """

    layer: int
    num_rows: int


@dataclass(frozen=True)
class Narrowing:
    """Which visual rows leave inside the decoder of one model.

    Attributes:
        method: how they are chosen.
        stages: where, ascending.
        renumbers: whether rows behind a stage stand at their places among those that are left.
        seed: random's, and that of no other.
    """

    method: Dropper
    stages: tuple[Stage, ...]
    renumbers: bool = False
    seed: int | None = None

    @cached_property
    def key(self) -> bytes:
        """The sha256 of all of it, 32 bytes."""
        return hashlib.sha256(repr(astuple(self)).encode()).digest()

    @property
    def is_ranked(self) -> bool:
        """Whether only the device knows which rows go on, and only after the prompt's last row."""
        return self.method not in (Dropper.VTW, Dropper.RANDOM)

    @property
    def merges(self) -> bool:
        """Whether some of the rows that leave go on as fewer, their means."""
        return self.method is Dropper.SPARSEVLM

    def num_left(self, prompt: "VisualRows") -> tuple[int, ...]:
        """Return how many visual rows of a prompt are left after each stage, merged ones too."""
        counts, alive = [], prompt.count
        for stage in self.stages:
            alive = self._departure(stage, alive, prompt).num_left
            counts.append(alive)
        return tuple(counts)

    def departures(self, prompt: "VisualRows") -> Iterator["Departure"]:
        """Yield what happens to a prompt, stage by stage; those at which nothing does are none."""
        alive = prompt.count
        for stage in self.stages:
            departure = self._departure(stage, alive, prompt)
            alive = departure.num_left
            if departure.num_kept < departure.num_before:
                yield departure

    def acts_on(self, prompt: "VisualRows") -> bool:
        """Return whether any row of a prompt leaves."""
        return any(self.departures(prompt))

    def _departure(self, stage: Stage, alive: int, prompt: "VisualRows") -> "Departure":
        wanted = stage.num_rows * prompt.num_images
        if self.method is Dropper.DART:
            wanted = _dart_count(wanted, alive, prompt.num_behind)
        if not self.merges:
            return Departure(stage.layer, alive, min(wanted, alive))
        if alive < 2:
            return Departure(stage.layer, alive, alive)
        # All that are there cannot be kept: one always leaves.
        kept = min(wanted, alive - 1)
        num_merging = math.floor(_MERGING_SHARE * (alive - kept)) + 1
        num_merged = num_merging // _ROWS_PER_CLUSTER + 1
        return Departure(stage.layer, alive, kept, num_merging, num_merged)


@dataclass(frozen=True)
class Departure:
    """What happens to the visual rows of a prompt before a block.

    Attributes:
        layer: the block.
        num_before: how many there were.
        num_kept: how many go on as they are.
        num_merging: how many of those that leave are merged.
        num_merged: into how many rows, which go on too.
    """

    layer: int
    num_before: int
    num_kept: int
    num_merging: int = 0
    num_merged: int = 0

    @property
    def num_left(self) -> int:
        """How many go on."""
        return self.num_kept + self.num_merged


def _dart_count(wanted: int, alive: int, num_behind: int) -> int:
    """Return how many rows dart keeps: its visual pivots, and equally many for each pivot."""
    visual, behind = pivot_counts(alive, num_behind)
    pivots = visual + behind
    return visual + pivots * (wanted // pivots) if pivots else 0


def pivot_counts(num_visual: int, num_behind: int) -> tuple[int, int]:
    """Return how many rows dart likens others to: of the visual ones, and of those behind them."""
    return min(_NUM_PIVOTS, num_visual), min(_NUM_PIVOTS, num_behind)


@dataclass(frozen=True)
class VisualRows:
    """The visual rows of a prompt that can leave: its last row never does, whatever it shows.

    Attributes:
        count: how many there are.
        num_images: of how many images.
        num_behind: rows of the prompt behind the last of them.
    """

    count: int
    num_images: int
    num_behind: int

    @classmethod
    def of(cls, prompt: Sequence[TokenClass], num_images: int) -> "VisualRows":
        """Count those of a prompt."""
        count = prompt.count(TokenClass.VISUAL)
        if not count:
            return cls(0, num_images, 0)
        last = len(prompt) - 1
        while prompt[last] is not TokenClass.VISUAL:
            last -= 1
        return cls(count, num_images, len(prompt) - 1 - last)


def narrowed(prompt: Sequence[TokenClass], num_left: int) -> tuple[TokenClass, ...]:
    """Return what is left of a prompt of which so many visual rows go on.

    Several runs of visual rows keep equal shares. Which rows of a run go on makes no difference to
    what is counted.
    """
    total = prompt.count(TokenClass.VISUAL)
    classes: list[TokenClass] = []
    seen = 0
    for token_class, run in groupby(prompt):
        rows = list(run)
        if token_class is TokenClass.VISUAL:
            before, seen = seen * num_left // total, seen + len(rows)
            rows = rows[: seen * num_left // total - before]
        classes += rows
    return tuple(classes)


@dataclass(frozen=True)
class Stretch:
    """Neighbouring layers of which all see the same rows of a prompt.

    Attributes:
        layers: the layers.
        prompt: classes of the rows.
        num_cached: leading ones that are at hand.
        leaving: what happens behind the last of the layers; None where nothing does.
    """

    layers: range
    prompt: tuple[TokenClass, ...]
    num_cached: int = 0
    leaving: Departure | None = None


def stretches(
    narrowing: Narrowing | None,
    prompt: Sequence[TokenClass],
    num_cached: int,
    *,
    num_layers: int,
    image_rows: int,
) -> list[Stretch]:
    """Return what the layers of a model see of a prompt.

    What is behind a prompt's first visual row is never at hand where rows leave.

    Args:
        narrowing: which rows leave; None where none do.
        prompt: its classes.
        num_cached: leading rows that are at hand.
        num_layers: of the model.
        image_rows: visual rows of an image.
    """
    classes = tuple(prompt)
    if narrowing is None or TokenClass.VISUAL not in classes:
        return [Stretch(range(num_layers), classes, num_cached)]
    num_images = -(-classes.count(TokenClass.VISUAL) // image_rows)
    departures = list(narrowing.departures(VisualRows.of(classes, num_images)))
    bounds = [0, *(it.layer for it in departures), num_layers]
    cached = min(num_cached, classes.index(TokenClass.VISUAL))
    left = [classes, *(narrowed(classes, it.num_left) for it in departures)]
    return [
        Stretch(range(start, stop), rows, cached, leaving)
        for (start, stop), rows, leaving in zip(
            pairwise(bounds), left, [*departures, None], strict=True
        )
    ]


def make_narrowing(rule: DropVisual, sizes: ModelSizes) -> Narrowing | None:
    """Return what a rule means for a model; None where all rows of an image go on.

    Raises:
        NarrowingMisfitError: the model has no such blocks, or its rows cannot be renumbered.
    """
    stages = tuple(
        Stage(
            layers_before(before, sizes.decoder.num_layers),
            _count(rule.method, keep, sizes.rows_per_image),
        )
        for before, keep in rule.stages
    )
    _check_layers([stage.layer for stage in stages], sizes.decoder.num_layers)
    if rule.method is not Dropper.SPARSEVLM and all(
        stage.num_rows >= sizes.rows_per_image for stage in stages
    ):
        return None
    positions = rule.positions or _DEFAULT_POSITIONS.get(rule.method, Positions.KEPT)
    renumbers = positions is Positions.RENUMBERED
    if renumbers and sizes.decoder.learns_positions:
        raise NarrowingMisfitError(
            "this model adds positions to the rows before its first block, so none can be "
            "renumbered later: positions must be kept"
        )
    seed = (rule.seed or 0) if rule.method is Dropper.RANDOM else None
    return Narrowing(rule.method, stages, renumbers, seed)


_DEFAULT_POSITIONS = {
    Dropper.PYRAMIDDROP: Positions.RENUMBERED,
    Dropper.SPARSEVLM: Positions.RENUMBERED,
}


def _check_layers(layers: list[int], num_layers: int) -> None:
    for layer in layers:
        if not 1 <= layer < num_layers:
            raise NarrowingMisfitError(
                f"rows cannot leave before layer {layer}: of this model that can be layers 1 to "
                f"{num_layers - 1}; reduce_visual takes them away before the first"
            )
    if any(after <= layer for layer, after in pairwise(layers)):
        raise NarrowingMisfitError(
            f"the blocks before which rows leave must ascend; of this model's {num_layers} layers "
            f"they are {', '.join(map(str, layers))}"
        )


def _count(method: Dropper, amount: int | str, whole: int) -> int:
    """Return how many of an image's rows an amount is, rounded as the method's own code does."""
    if isinstance(amount, int):
        return amount
    share = amount_of(amount) * whole
    match method:
        case Dropper.FASTV:
            return round(share)
        case Dropper.PYRAMIDDROP:
            return math.floor(share)
        case _:
            return math.floor(share + Fraction(1, 2))
