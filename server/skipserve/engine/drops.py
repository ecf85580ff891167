"""Which rows of a sequence's prompt go on behind which layer, as far as the host knows."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skipserve.engine.request import Request
from skipserve.model.narrowing.handover import WaitingRows
from skipserve.model.seeded_rows import random_rows
from skipserve_policies.narrowing import Departure, Narrowing, Stretch, narrowed
from skipserve_policies.plan import TokenClass
from skipserve_policies.schema import Dropper

Index = NDArray[np.int64]

# Stands for a row that only the device will know.
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Reached:
    """Which rows of a chunk reach a stage.

    Attributes:
        start: the place there of the first.
        rows: the rows, of prompt and answer, [N]; UNKNOWN for what is ranked in this forward.
        classes: theirs, [N].
        is_ranked: whether the chunk brings what its prompt's ranking waited for: then these are all
            rows of the prompt that go on.
    """

    start: int
    rows: Index
    classes: Index
    is_ranked: bool = False


@dataclass(eq=False)
class Drops:
    """The visual rows of a prompt that leave, by stage; before the first layer of all is stage 0.

    A row has a place in each stage that it reaches: among those that are left there, from 0.

    Attributes:
        narrowing: how they are chosen.
        departures: what happens before each later stage.
        prompt: the classes of its rows.
        visual: the rows that may leave, ascending.
        kept: the rows of the prompt that reach each later stage; None until they are ranked, and
            read from the device, and where rows are merged.
        fates: where rows are merged, what became of the visual rows before each later stage, as a
            `Ranking` has it; None until they are ranked, and read from the device.
        first: how many leading rows were at hand when the prompt was begun.
        waiting: rows that have come as far as the ranking.
    """

    narrowing: Narrowing
    departures: tuple[Departure, ...]
    prompt: tuple[TokenClass, ...]
    visual: Index
    kept: tuple[Index, ...] | None = None
    fates: tuple[Index, ...] | None = None
    first: int = 0
    waiting: WaitingRows = field(default_factory=WaitingRows)

    @classmethod
    def of(cls, request: Request) -> "Drops | None":
        """Return what leaves of a request's prompt; None where nothing does."""
        narrowing = request.active_narrowing
        if narrowing is None:
            return None
        visual = np.flatnonzero(request.class_array == TokenClass.VISUAL)
        departures = tuple(narrowing.departures(request.visual_rows))
        drops = cls(narrowing, departures, request.token_classes, visual)
        if not narrowing.is_ranked:
            drops.keep([_settled(request, visual, narrowing)])
        return drops

    @cached_property
    def _classes(self) -> NDArray[np.uint8]:
        return np.frombuffer(bytes(self.prompt), dtype=np.uint8)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The block before which each later stage begins."""
        return tuple(it.layer for it in self.departures)

    @cached_property
    def num_rows(self) -> tuple[int, ...]:
        """Rows of the prompt in each stage, the first one's too."""
        num_gone = (len(self.visual) - it.num_left for it in self.departures)
        return self.num_prompt, *(self.num_prompt - gone for gone in num_gone)

    @property
    def needs_whole_prompt(self) -> bool:
        """Whether no row gets behind the first stage before the prompt's last one is there.

        What is merged is made of rows of the whole prompt, though it be known which.
        """
        return self.kept is None

    @property
    def needs_raters(self) -> bool:
        """Whether rows behind the images are still to rank those of the images."""
        return self.narrowing.merges and self.fates is None

    @property
    def num_prompt(self) -> int:
        """Rows of the prompt."""
        return len(self.prompt)

    @property
    def first_behind(self) -> int:
        """The row behind the last visual one."""
        return int(self.visual[-1]) + 1

    @property
    def widest(self) -> int:
        """The most rows that go on at once where the prompt is ranked."""
        return self.num_rows[1] - self.first

    def stage_at(self, layer: int) -> int:
        """Return the stage that a layer belongs to."""
        return bisect_right(self.layers, layer)

    def num_dropped(self, stage: int) -> int:
        """Return how many rows of the prompt have left before a stage."""
        return self.num_rows[0] - self.num_rows[stage]

    def settle(self, chosen: list[Index]) -> None:
        """Take note of what a ranking has chosen, stage by stage."""
        if self.narrowing.merges:
            self.fates = tuple(chosen)
        else:
            self.keep(chosen)

    def keep(self, visual: list[Index]) -> None:
        """Settle which visual rows reach each later stage."""
        others = np.setdiff1d(np.arange(self.num_rows[0]), self.visual, assume_unique=True)
        self.kept = tuple(np.sort(np.concatenate([others, rows])) for rows in visual)

    def num_visual(self, stage: int) -> int:
        """Return how many visual rows reach a stage."""
        return len(self.visual) - self.num_dropped(stage)

    def stretch(self, stage: int, num_cached: int) -> Stretch:
        """Return the prompt as the layers of a stage see it."""
        layers = range((0, *self.layers)[stage], self.layers[stage])
        prompt = narrowed(self.prompt, self.num_visual(stage))
        return Stretch(layers, prompt, num_cached, self.departures[stage])

    def begin(self, num_computed: int) -> None:
        """Start with the prompt, of which so many leading rows are at hand."""
        self.first = num_computed
        self.waiting = WaitingRows()

    def reached(self, stage: int, start: int, stop: int, ranked_from: int | None) -> Reached:
        """Return which of some rows, of prompt and answer, reach a stage.

        Args:
            stage: which.
            start: the first row.
            stop: the one behind the last.
            ranked_from: where the rows bring what the ranking waited for, how many leading rows
                were at hand; else None.
        """
        if stage == 0 or start >= self.num_prompt:
            rows = np.arange(start, stop)
            return Reached(start - self.num_dropped(stage), *self._with_classes(rows))
        if ranked_from is not None:
            classes = np.array(narrowed(self.prompt, self.num_visual(stage))[ranked_from:])
            unknown = np.full(len(classes), UNKNOWN)
            return Reached(ranked_from, unknown, classes, is_ranked=True)
        if start == stop:
            return Reached(0, *self._with_classes(np.arange(0)))
        assert self.kept is not None, "the rows are not ranked yet"
        kept = self.kept[stage - 1]
        first, last = kept.searchsorted((start, stop))
        answer = np.arange(self.num_prompt, max(stop, self.num_prompt))
        rows = np.concatenate([kept[first:last], answer])
        return Reached(int(first), *self._with_classes(rows))

    def _with_classes(self, rows: Index) -> tuple[Index, Index]:
        is_prompt = rows < self.num_prompt
        classes = np.full(len(rows), TokenClass.GENERATED, dtype=np.int64)
        classes[is_prompt] = self._classes[rows[is_prompt]]
        return rows, classes


def _settled(request: Request, visual: Index, narrowing: Narrowing) -> Index:
    """Return the visual rows that stay where the prompt alone decides which."""
    if narrowing.method is Dropper.VTW:
        return visual[:0]
    return np.concatenate(list(_random_visual(request, visual, narrowing)))


def _random_visual(request: Request, visual: Index, narrowing: Narrowing) -> Iterator[Index]:
    count = narrowing.stages[0].num_rows
    for image, start in zip(request.images, request.image_starts, strict=False):
        rows = visual[start : start + image.num_rows]
        seed = image.seed(narrowing.seed or 0)
        yield rows[random_rows(seed, len(rows), min(count, len(rows)))]
