"""Decode steps as captured graphs, which the host launches in one call.

A graph is frozen: its launches, their sizes, and the memory they read. So there is one for each
number of rows in a short list, and a step fills up the next larger one with rows that do nothing.
A *uniform* graph is of one plan's column and leaves out what the column skips. A *gated* one is of
any mix: each row carries bits that say what it does at each layer, and what no row wants is not
read. Which keys a row sees at each layer, and where it leaves its own, is told to all graphs alike.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.engine.device_memory import is_out_of_memory
from skipserve.engine.inputs import StepRows, known_tokens
from skipserve.engine.layer_places import layer_places
from skipserve.engine.plans import PlanTable, plan_work
from skipserve.engine.reports import StepMode
from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve.engine.tables import SeatTables
from skipserve.model.batch import Batch, KvGroup, Segment
from skipserve.model.layers import KVCache
from skipserve.model.model import Model
from skipserve.model.transfer import send
from skipserve.model.work import GatedWork, Index, Indexes, RowWork, Work
from skipserve_policies.plan import Plan, TokenClass

logger = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64)

Numbers = TypeVar("Numbers", Index, Tensor)

# What a row of a decode step does, by layer: bits of Work. Empty: any mix.
Column = bytes

_GATED: Column = b""
_PAIRED = Work.PAIR_FIRST | Work.PAIR_SECOND


@dataclass(frozen=True)
class _GraphInputs:
    """What the graphs of one bucket read, on the device, in one piece: int64.

    Everything that a graph reads and does not make itself lies here: a graph keeps nothing alive.
    Rows of a prompt that some layers have not seen make a row's place another one there: so each
    layer has places of its own, whether they differ or not.

    Attributes:
        numbers: the piece; the others are views of it.
        blank: what it holds when no row does anything, on the host.
        shapes: of the others, in their order.
        ids, seats: by row, [b].
        places: K/V slot, place and position by layer and row, [3, L, b].
        tables: pages by row, [b, W].
        gates: Work by layer and row, [L, b]; only gated graphs read it.
        rows: 0, 1, ..., [b].
    """

    numbers: Tensor
    blank: Index
    shapes: list[tuple[int, ...]]
    ids: Tensor
    seats: Tensor
    places: Tensor
    tables: Tensor
    gates: Tensor
    rows: Tensor

    @classmethod
    def empty(
        cls, num_rows: int, width: int, num_layers: int, device: torch.device
    ) -> "_GraphInputs":
        """Return inputs for so many rows, page table entries a row, and layers."""
        by_row, by_layer = (num_rows,), (num_layers, num_rows)
        shapes: list[tuple[int, ...]] = [
            by_row,
            by_row,
            (3, *by_layer),
            (num_rows, width),
            by_layer,
            by_row,
        ]
        blank = np.zeros(sum(map(math.prod, shapes)), dtype=np.int64)
        _, _, places, _, _, rows = _cut(blank, shapes)
        places[:] = -1
        rows[:] = np.arange(num_rows)
        numbers = torch.from_numpy(blank.copy()).to(device)
        return cls(numbers, blank, shapes, *_cut(numbers, shapes))

    def fill(self, rows: StepRows, places: Index, work: NDArray[np.uint8] | None) -> None:
        """Put in the rows of a step, in one copy.

        Args:
            rows: T of them.
            places: theirs, [3, L, T].
            work: their gates, [L, T], if they count.
        """
        shapes = self.shapes[: 4 if work is None else 5]
        filled = self.blank[: sum(map(math.prod, shapes))].copy()
        ids, seats, by_layer, tables, *gates = _cut(filled, shapes)
        num_rows = rows.numbers.shape[1]
        ids[:num_rows], _, _, seats[:num_rows] = rows.numbers
        by_layer[..., :num_rows] = places
        tables[:num_rows, : rows.page_tables.shape[1]] = rows.page_tables
        if work is not None:
            gates[0][:, :num_rows] = work
        send([filled], self.numbers)


def _cut(numbers: Numbers, shapes: list[tuple[int, ...]]) -> list[Numbers]:
    """Return the pieces of flat numbers that lie one behind the other, as views."""
    starts = accumulate(map(math.prod, shapes), initial=0)
    return [
        numbers[start:][: math.prod(shape)].reshape(shape)
        for start, shape in zip(starts, shapes, strict=False)
    ]


@dataclass(frozen=True)
class _Graph:
    """A captured forward; `replay` computes `logits` anew, [b, V]."""

    replay: Callable[[], object]
    logits: Tensor


class DecodeGraphs:
    """The graphs of a model.

    Args:
        model: its decoder takes gates.
        cache: keys and values.
        tables: what the running sequences hold.
        plans: what the columns in the tables mean.
        last_tokens: the last token of each seat, on the device, [seats].
        hot: plans whose decode steps get graphs of their own.
    """

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        tables: SeatTables,
        plans: PlanTable,
        last_tokens: Tensor,
        hot: tuple[Plan, ...],
    ) -> None:
        self._model = model
        self._cache = cache
        self._tables = tables
        self._plans = plans
        self._last_tokens = last_tokens
        num_layers = model.config.sizes.decoder.num_layers
        width = tables.pages.shape[1]
        largest = min(tables.num_seats, BUCKETS[-1])
        self._inputs = {
            bucket: _GraphInputs.empty(bucket, width, num_layers, model.device)
            for bucket in BUCKETS
            if bucket < largest
        }
        self._inputs[largest] = _GraphInputs.empty(largest, width, num_layers, model.device)
        self._capturer = _Capturer(model.device)
        columns = [plan_work(plan)[TokenClass.GENERATED] for plan in hot]
        hot_columns = {_key(work) for work in columns if not (work & _PAIRED).any()}
        with torch.inference_mode():
            self._graphs = self._capture_all(hot_columns)

    def _capture_all(self, hot_columns: set[Column]) -> dict[tuple[Column, int], _Graph]:
        """Capture the largest first, for the smaller ones fit into its memory, as far as it goes.

        What has no graph runs without.
        """
        graphs: dict[tuple[Column, int], _Graph] = {}
        try:
            for bucket in sorted(self._inputs, reverse=True):
                for column in (_GATED, *sorted(hot_columns)):
                    graphs[column, bucket] = self._capture(column, self._inputs[bucket])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("no memory for more than %d graphs of decode steps", len(graphs))
        return graphs

    @torch.inference_mode()
    def run(self, step: Step, rows: StepRows) -> tuple[Tensor, Tensor, StepMode] | None:
        """Run a step, if a graph fits it.

        Returns:
            Logits [T, V] float32, which the next step overwrites, the seats of the rows [T], and
            the kind of graph. None where a row is not the only one of its sequence, gives no token,
            shows an image, is one of a pair or of a prompt of which rows leave, and for too many.
        """
        buckets = [b for column, b in self._graphs if column == _GATED and b >= step.num_rows]
        if not buckets or not _is_decode(step):
            return None
        work = self._plans.work(rows.columns)
        if (work & _PAIRED).any():
            return None
        bucket = min(buckets)
        column = _key(work[:, 0]) if (work == work[:, :1]).all() else _GATED
        is_uniform = column != _GATED and (column, bucket) in self._graphs
        graph = self._graphs[column if is_uniform else _GATED, bucket]
        inputs = self._inputs[bucket]
        places = layer_places(step, rows, self._tables, self._plans.num_layers)
        inputs.fill(rows, places, None if is_uniform else work)
        graph.replay()
        mode = StepMode.UNIFORM if is_uniform else StepMode.GATED
        return graph.logits[: step.num_rows], inputs.seats[: step.num_rows], mode

    def _capture(self, column: Column, inputs: _GraphInputs) -> _Graph:
        batch = self._batch(column, inputs)

        def forward() -> Tensor:
            ids = known_tokens(inputs.ids, inputs.seats, self._last_tokens)
            return self._model.forward(replace(batch, token_ids=ids), self._cache)

        return self._capturer.capture(forward)

    def _batch(self, column: Column, inputs: _GraphInputs) -> Batch:
        num_rows = len(inputs.ids)
        work: RowWork | GatedWork = GatedWork(inputs.gates)
        if column != _GATED:
            of_one = np.frombuffer(column, dtype=np.uint8)
            work = RowWork.of(of_one[:, None].repeat(num_rows, axis=1))
        # What only the host would read of a table, it does not for rows on their own.
        tables = Indexes(np.zeros((0, 0), dtype=np.int64), inputs.tables)
        num_cached = np.zeros(num_rows, dtype=np.int64)
        groups = tuple(
            KvGroup(tables, slots, places, positions, num_cached)
            for slots, places, positions in inputs.places.unbind(1)
        )
        layers = range(len(groups))
        segment = Segment(layers, work, np.arange(num_rows + 1), groups, tuple(layers))
        return Batch(inputs.ids, inputs.ids[:0], None, (segment,), logit_rows=inputs.rows)


def _key(work: NDArray[np.uint8]) -> Column:
    return work.tobytes()


def _is_decode(step: Step) -> bool:
    """Return whether each row is the only one of its sequence, gives a token and shows none.

    Nor does it belong to a prompt of which rows leave, for its last one ranks the others.
    """
    return step.num_rows == len(step.chunks) and all(
        chunk.samples and chunk.start >= _after_prompt(chunk.sequence) for chunk in step.chunks
    )


def _after_prompt(sequence: Sequence) -> int:
    """Return from which position on no row shows an image or ranks others."""
    return sequence.visual_stop if sequence.drops is None else sequence.num_prompt


class _Capturer:
    """Captures forwards whose inputs stay where they are; all graphs share one piece of memory.

    Where there are no graphs, on the CPU, replaying runs the forward again.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()
            # One for all: libraries keep memory for each stream that they have worked on.
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(self, forward: Callable[[], Tensor]) -> _Graph:
        """Return the graph of a forward, which is run as well."""
        if self._device.type != "cuda":
            logits = forward()
            return _Graph(lambda: logits.copy_(forward()), logits)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        # What runs for the first time may allocate and compile, which a capture does not allow.
        with torch.cuda.stream(self._stream):
            forward()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            logits = forward()
        return _Graph(graph.replay, logits)
