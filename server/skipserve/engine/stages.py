"""The rows of a step in which some leave between layers: what each range of layers sees."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from skipserve.engine.drops import UNKNOWN, Drops
from skipserve.engine.plans import NUM_CLASSES, PlanTable
from skipserve.engine.scheduler import Chunk, Step
from skipserve.engine.sequence import Sequence
from skipserve.engine.tables import SeatTables
from skipserve.model.batch import KvGroup, Segment
from skipserve.model.narrowing.handover import (
    Handover,
    Looks,
    Ranking,
    Stop,
    Survivors,
    WaitingRows,
)
from skipserve.model.transfer import to_device
from skipserve.model.work import Index, Indexes, RowWork
from skipserve_policies.schema import Dropper


def has_drops(step: Step) -> bool:
    """Return whether rows of some sequence of a step have left, or leave."""
    return any(chunk.sequence.drops is not None for chunk in step.chunks)


@dataclass(frozen=True, eq=False)
class _Piece:
    """The rows of a chunk in a range of layers.

    Attributes:
        chunk: its number in the step.
        stage: of its sequence.
        start: the place of the first row.
        rows: the rows, of prompt and answer; UNKNOWN for what is ranked in this forward.
        columns: of the table of plans, as long.
        at: where the first stands among the rows of the range.
        is_ranked: whether this forward ranks the rows of its prompt, and it has some of them.
    """

    chunk: int
    stage: int
    start: int
    rows: Index
    columns: Index
    at: int
    is_ranked: bool = False

    @property
    def stop(self) -> int:
        """Where the row behind its last one stands."""
        return self.at + len(self.rows)

    @property
    def places(self) -> Index:
        """The places of its rows in its stage."""
        return np.arange(self.start, self.start + len(self.rows))


@dataclass(frozen=True, eq=False)
class _Choice:
    """A choice that a chunk brings.

    Attributes:
        old: its rows in the range before.
        piece: in the range that they enter.
        source: where all rows of its prompt are that have come so far, as a `Handover` counts them.
    """

    old: _Piece
    piece: _Piece
    source: Index


@dataclass(frozen=True, eq=False)
class _Range:
    """What neighbouring layers see that lie between two boundaries of any sequence."""

    layers: range
    pieces: tuple[_Piece, ...]

    @property
    def num_rows(self) -> int:
        return self.pieces[-1].stop

    @cached_property
    def by_chunk(self) -> dict[int, _Piece]:
        return {piece.chunk: piece for piece in self.pieces}


def find_ranges(step: Step, tables: SeatTables, num_layers: int) -> list[_Range]:
    """Return what the layers see, from the first to the last that sees any row."""
    drops = [chunk.sequence.drops for chunk in step.chunks]
    bounds = sorted({layer for it in drops if it is not None for layer in it.layers})
    ranges = []
    for start, stop in pairwise([0, *bounds, num_layers]):
        pieces: list[_Piece] = []
        for number, chunk in enumerate(step.chunks):
            at = pieces[-1].stop if pieces else 0
            piece = _piece(number, chunk, start, at, tables)
            if len(piece.rows):
                pieces.append(piece)
        if not pieces:
            break
        ranges.append(_Range(range(start, stop), tuple(pieces)))
    return ranges


def _piece(number: int, chunk: Chunk, layer: int, at: int, tables: SeatTables) -> _Piece:
    sequence, drops = chunk.sequence, chunk.sequence.drops
    if drops is None:
        rows = np.arange(chunk.start, chunk.stop)
        return _Piece(number, 0, chunk.start, rows, tables.columns[sequence.seat, rows], at)
    stage = drops.stage_at(layer)
    reached = chunk.reached(stage)
    columns = reached.classes + sequence.plan.index * NUM_CLASSES
    return _Piece(number, stage, reached.start, reached.rows, columns, at, reached.is_ranked)


class StageBuilder:
    """Makes the segments of a step whose rows leave on the way.

    Args:
        step: which rows.
        tables: what the sequences hold.
        plans: what their columns mean.
        device: where the forward runs.

    Attributes:
        chosen: by sequence whose rows are ranked, what is chosen for each later stage, as the
            forward finds it.
        embedded_rows: the rows of which choices look at what enters the first block, on the device;
            None where none does.
    """

    def __init__(
        self, step: Step, tables: SeatTables, plans: PlanTable, device: torch.device
    ) -> None:
        self.chosen: dict[Sequence, list[Tensor]] = {}
        self._step = step
        self._tables = tables
        self._plans = plans
        self._device = device
        self._survivors: dict[int, Survivors] = {}
        self._ranges = find_ranges(step, tables, plans.num_layers)
        self._embedded: dict[int, tuple[int, int]] = {}
        self.embedded_rows = self._hold_embedded()

    def build(self) -> tuple[tuple[Segment, ...], Index]:
        """Return the segments, and which rows of the last one give tokens."""
        groups = [self._group(it) for it in self._ranges]
        segments = [self._segment(joined, groups) for joined in self._join()]
        last = self._ranges[-1]
        reaches_end = last.layers.stop == self._plans.num_layers
        logit_rows = [
            piece.stop - 1
            for piece in last.pieces
            if reaches_end and self._step.chunks[piece.chunk].samples
        ]
        return tuple(segments), np.array(logit_rows, dtype=np.int64)

    def scored_rows(self) -> Index:
        """Return the rows of the last segment whose next token is scored."""
        last = self._ranges[-1].by_chunk
        pieces = [
            (last[number], chunk.scored_positions)
            for number, chunk in enumerate(self._step.chunks)
            if chunk.scored
        ]
        return np.concatenate(
            [piece.at + piece.rows.searchsorted(positions) for piece, positions in pieces]
        )

    def _to_device(self, *arrays: Index | list[int]) -> list[Tensor]:
        # Copies, for some are filled in, and others are views of tables.
        return to_device([np.array(array, dtype=np.int64) for array in arrays], self._device)

    def _join(self) -> Iterator[list[int]]:
        """Yield ranges that see the same rows, though these may lie elsewhere in each."""
        joined = [0]
        for number in range(1, len(self._ranges)):
            if self._changes(number):
                yield joined
                joined = []
            joined.append(number)
        yield joined

    def _changes(self, number: int) -> bool:
        """Return whether some rows leave before a range."""
        before, behind = (
            [(piece.chunk, len(piece.rows), piece.is_ranked and piece.stage) for piece in it.pieces]
            for it in self._ranges[number - 1 : number + 1]
        )
        return before != behind

    def _segment(self, joined: list[int], groups: list[KvGroup]) -> Segment:
        first, last = self._ranges[joined[0]], self._ranges[joined[-1]]
        columns = np.concatenate([piece.columns for piece in first.pieces])
        pattern = self._plans.pattern(columns)
        host_sets = pattern.indexes(columns)
        sets = list(map(Indexes, host_sets, self._to_device(*host_sets)))
        of_layer = [0] * self._plans.num_layers
        for place, number in enumerate(joined):
            layers = self._ranges[number].layers
            of_layer[layers.start : layers.stop] = [place] * len(layers)
        return Segment(
            layers=range(first.layers.start, last.layers.stop),
            work=RowWork.select(pattern, sets),
            row_starts=np.array([0, *(piece.stop for piece in first.pieces)]),
            kv_groups=tuple(groups[number] for number in joined),
            kv_group_of=tuple(of_layer),
            handover=self._handover(joined[-1], groups),
        )

    def _group(self, seen: _Range) -> KvGroup:
        """Return where the keys and values of a range live."""
        chunks, page_size = self._step.chunks, self._tables.page_size
        seats = np.array([chunks[piece.chunk].sequence.seat for piece in seen.pieces])
        counts = np.array([len(piece.rows) for piece in seen.pieces])
        starts = np.array([piece.start for piece in seen.pieces])
        places = np.concatenate([piece.places for piece in seen.pieces])
        positions = np.concatenate([self._positions(piece) for piece in seen.pieces])
        pages = self._tables.pages[seats.repeat(counts), places // page_size]
        tables = self._tables.pages[seats, : -(-int((starts + counts).max()) // page_size)]
        slots = pages * page_size + places % page_size
        sent = self._to_device(tables, slots, places, positions)
        return KvGroup(Indexes(tables, sent[0]), sent[1], sent[2], sent[3], starts)

    def _positions(self, piece: _Piece) -> Index:
        drops = self._drops(piece)
        renumbers = drops is not None and piece.stage and drops.narrowing.renumbers
        return piece.places if renumbers else piece.rows

    def _drops(self, piece: _Piece) -> Drops | None:
        return self._step.chunks[piece.chunk].sequence.drops

    def _handover(self, number: int, groups: list[KvGroup]) -> Handover | None:
        """Return which rows go on behind a range."""
        before = self._ranges[number]
        behind = self._ranges[number + 1] if number + 1 < len(self._ranges) else None
        asking: list[int] = []
        stops = tuple(self._stops(before, asking))
        if behind is None:
            held = self._rows_if_any(asking)
            return Handover(self._rows([]), stops=stops, asking=held) if stops else None
        returning: list[WaitingRows] = []
        num_source = before.num_rows
        ranked: list[_Choice] = []
        entering = np.full(behind.num_rows, UNKNOWN)
        for piece in behind.pieces:
            old = before.by_chunk[piece.chunk]
            source = np.arange(old.at, old.stop)
            if not piece.is_ranked or piece.stage == old.stage:
                rows = slice(None) if piece.is_ranked else old.rows.searchsorted(piece.rows)
                entering[piece.at : piece.stop] = source[rows]
                continue
            waiting = self._known_drops(piece).waiting
            if old.stage == 0 and waiting.num_rows:
                source = np.concatenate([np.arange(waiting.num_rows) + num_source, source])
                num_source += waiting.num_rows
                returning.append(waiting)
            ranked.append(_Choice(old, piece, source))
        sent, rankings = self._rows(entering), []
        for choice in ranked:
            looks = self._looks(choice.old, asking)
            ranking = self._ranking(
                choice,
                looks,
                merged_from=num_source,
                entering=sent[choice.piece.at : choice.piece.stop],
                positions=tuple(self._positions_to_fill(choice.piece, number + 1, groups)),
            )
            num_source += ranking.leaving.num_merged
            rankings.append(ranking)
        return Handover(
            entering=sent,
            returning=tuple(returning),
            stops=stops,
            rankings=tuple(rankings),
            asking=self._rows_if_any(asking),
        )

    def _rows(self, rows: Index | list[int]) -> Tensor:
        return self._to_device(rows)[0]

    def _rows_if_any(self, rows: list[int]) -> Tensor | None:
        return self._rows(rows) if rows else None

    def _stops(self, before: _Range, asking: list[int]) -> Iterator[Stop]:
        """Yield the rows of a range that wait behind it."""
        for piece in before.pieces:
            drops = self._drops(piece)
            chunk = self._step.chunks[piece.chunk]
            if drops is not None and chunk.waits and before.layers.stop == drops.layers[0]:
                looks = self._looks(piece, asking)
                yield Stop((piece.at, piece.stop), drops.waiting, looks)

    def _looks(self, old: _Piece, asking: list[int]) -> Looks:
        """Return what a choice looks at of a chunk besides, and have the rows held that ask."""
        drops, start = self._known_drops(old), len(asking)
        chunk = self._step.chunks[old.chunk]
        if drops.narrowing.method is Dropper.FASTV and not chunk.waits:
            asking.append(old.stop - 1)
        elif drops.needs_raters:
            num_asking = chunk.stop - max(chunk.start, drops.first_behind)
            if old.stage:
                num_asking = drops.num_prompt - drops.first_behind
            asking += range(old.stop - max(num_asking, 0), old.stop)
        return Looks(self._embedded.get(old.chunk, (0, 0)), (start, len(asking)))

    def _hold_embedded(self) -> Tensor | None:
        """Note of each chunk that is to be merged which rows are held from the start."""
        held: list[int] = []
        for number, piece in self._ranges[0].by_chunk.items():
            drops, chunk = self._drops(piece), self._step.chunks[number]
            if drops is None or not drops.needs_raters:
                continue
            if chunk.waits or chunk.ranked_from is not None:
                at = piece.at + max(int(drops.visual[0]) - chunk.start, 0)
                rows = range(at, piece.stop)
                self._embedded[number] = len(held), len(held) + len(rows)
                held += rows
        return self._rows_if_any(held)

    def _known_drops(self, piece: _Piece) -> Drops:
        drops = self._drops(piece)
        assert drops is not None
        return drops

    def _ranking(
        self,
        choice: _Choice,
        looks: Looks,
        *,
        merged_from: int,
        entering: Tensor,
        positions: tuple[Tensor, ...],
    ) -> Ranking:
        """Return the choice of the rows of a chunk that enter a range."""
        old, piece, page_size = choice.old, choice.piece, self._tables.page_size
        sequence, drops = self._step.chunks[piece.chunk].sequence, self._known_drops(piece)
        leaving = drops.departures[old.stage]
        if piece.chunk not in self._survivors:
            ids, visual = self._to_device(np.arange(drops.num_rows[0]), drops.visual)
            self._survivors[piece.chunk] = Survivors(ids, visual)
        places = np.arange(drops.num_rows[old.stage])
        slots = self._tables.pages[sequence.seat, places // page_size] * page_size
        to_choose = np.arange(leaving.num_before if leaving.num_merged else leaving.num_kept)
        if drops.fates is not None:
            to_choose = drops.fates[old.stage]
        source_sent, slots_sent, chosen = self._to_device(
            choice.source, slots + places % page_size, to_choose
        )
        if drops.fates is None:
            self.chosen.setdefault(sequence, []).append(chosen)
        return Ranking(
            narrowing=drops.narrowing,
            layer=leaving.layer,
            survivors=self._survivors[piece.chunk],
            leaving=leaving,
            num_behind=drops.num_prompt - drops.first_behind,
            first=drops.first,
            source=source_sent,
            slots=slots_sent,
            waiting=drops.waiting,
            looks=looks,
            merged_from=merged_from,
            entering=entering,
            positions=positions,
            chosen=chosen,
            is_settled=drops.fates is not None,
        )

    def _positions_to_fill(
        self, piece: _Piece, number: int, groups: list[KvGroup]
    ) -> Iterator[Tensor]:
        """Yield the positions of a ranked chunk's rows, as long as its stage lasts."""
        if self._known_drops(piece).narrowing.renumbers:
            return
        for seen, group in zip(self._ranges[number:], groups[number:], strict=True):
            same = seen.by_chunk.get(piece.chunk)
            if same is not None and same.stage == piece.stage:
                yield group.positions[same.at : same.stop]
