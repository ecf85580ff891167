"""One forward, as the model sees it: rows of any number of sequences and plans.

It is a chain of segments, each a range of layers over one list of rows. What a row does at a layer
is in `work`; which rows of a segment go on to the next, in its `handover`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from torch import Tensor

from skipserve.model.narrowing.handover import Handover
from skipserve.model.scoring import Scoring
from skipserve.model.work import GatedWork, Index, Indexes, LayerRows, RowWork

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class KvGroup:
    """Where keys and values live, for layers that keep the same rows of each sequence.

    The rows of a sequence have places, counted from 0 without a gap: those that a layer does not
    see have none there. Slot s of a layer is place s % page_size of page s // page_size.

    Attributes:
        tables: pages by sequence, in the order of their places, [B, W]; what lies behind a
            sequence's last page is not looked at.
        slots: where each row's keys and values go, [T] int64; -1 for nowhere.
        places: of each row, [T] int64; -1 for a row that only fills a captured graph.
        positions: what each row is turned by, [T] int64; -1 likewise. Where no row of any sequence
            has left, the places.
        num_cached: how many places of each sequence precede its first row, on the host, [B].
    """

    tables: Indexes
    slots: Tensor
    places: Tensor
    positions: Tensor
    num_cached: Index


@dataclass(frozen=True, eq=False)
class Segment:
    """A range of layers over one list of T rows of B sequences.

    Attributes:
        layers: which layers of the model.
        work: which rows do what.
        row_starts: index of the first row of each sequence, and T, on the host, [B + 1].
        kv_groups: where keys and values live.
        kv_group_of: which of them each layer of the model has.
        handover: which rows go on to the next segment; None where all do, as they are.
    """

    layers: range
    work: RowWork | GatedWork
    row_starts: Index
    kv_groups: tuple[KvGroup, ...]
    kv_group_of: tuple[int, ...]
    handover: Handover | None = None

    @classmethod
    def whole(cls, work: RowWork | GatedWork, row_starts: Index, group: KvGroup) -> Self:
        """Return the segment of all layers of a model, whose keys and values lie alike."""
        layers = range(len(work.kind_of))
        return cls(layers, work, row_starts, (group,), (0,) * len(layers))

    @property
    def num_rows(self) -> int:
        """Return T."""
        return int(self.row_starts[-1])

    def rows(self, layer: int) -> LayerRows:
        """Return which rows do what in a layer of the model."""
        return self.work.kinds[self.work.kind_of[layer]]

    def kv_group(self, layer: int) -> KvGroup:
        """Return where the keys and values of a layer of the model live."""
        return self.kv_groups[self.kv_group_of[layer]]

    def prepare(self, make: Callable[[LayerRows, KvGroup], T]) -> dict[int, T]:
        """Make what the layers that are not idle need, once for those that agree; by layer."""
        made: dict[tuple[int, int], T] = {}
        prepared: dict[int, T] = {}
        for layer in self.layers:
            key = self.work.kind_of[layer], self.kv_group_of[layer]
            if self.rows(layer).is_idle:
                continue
            if key not in made:
                made[key] = make(self.rows(layer), self.kv_group(layer))
            prepared[layer] = made[key]
        return prepared


@dataclass(frozen=True, eq=False)
class Batch:
    """One forward of T rows.

    Attributes:
        token_ids: [T] int64; the id at a visual row is not looked up.
        visual_rows: [N] int64, the rows that take a row of `visual_features`, in order.
        visual_features: projected image features, [N, D]; None without visual rows.
        segments: the layers, in order; the first one has all rows.
        logit_rows: [R] int64, the rows of the last segment whose logits are wanted.
        embedded_rows: [E] int64, the rows of which some choice of rows looks at what enters the
            first block; None where none does.
        scoring: those whose next token is known and scored, into which the forward writes; None
            where there are none.
    """

    token_ids: Tensor
    visual_rows: Tensor
    visual_features: Tensor | None
    segments: tuple[Segment, ...]
    logit_rows: Tensor
    embedded_rows: Tensor | None = None
    scoring: Scoring | None = None

    @property
    def positions(self) -> Tensor:
        """The positions of all rows, [T] int64, counted from 0 in each sequence."""
        return self.segments[0].kv_groups[0].positions
