"""One layer of a LLaMA decoder in fused kernels, for rows that do different things.

The residual stream is changed in place. Knows no policy. Shapes: T rows of a forward, N rows of a
selection, D hidden, H query heads, K key/value heads, C head size, F FFN size.
"""

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from skipserve.model.block_weights import BlockWeights
from skipserve.model.fused.rows import FfnNorm, FusedRows, QueryRows
from skipserve.model.work import Work
from skipserve_kernels.fused.input_projection.packing import InputWeights, Part, pack_inputs
from skipserve_kernels.fused.input_projection.triton import (
    Bits,
    Normed,
    Projected,
    input_projection,
)
from skipserve_kernels.fused.launch import Launch, Scratch, Selection
from skipserve_kernels.fused.norm_rows.triton import Target, norm_rows
from skipserve_kernels.fused.output_projection.packing import OutputWeights, pack_outputs
from skipserve_kernels.fused.output_projection.triton import output_projection
from skipserve_kernels.fused.paged import PagedKeyValues
from skipserve_kernels.fused.paged_decode.triton import paged_decode
from skipserve_kernels.fused.paged_prefill.triton import paged_prefill
from skipserve_kernels.key_values import KeyValues

_BITS = Bits(query=Work.ATTENTION, key_value=Work.KV, ffn=Work.FFN)


@dataclass(frozen=True)
class BlockContext:
    """What all blocks share.

    Attributes:
        factors: rotary factors, [P, 2, C / 2] float32.
        scratch: for results that several programs compute together.
        page_size: of the cache.
    """

    factors: Tensor
    scratch: Scratch
    page_size: int


@dataclass(frozen=True)
class FusedBlock:
    """One layer: its weights and what to do with them."""

    attention_gain: Tensor
    ffn_gain: Tensor
    inputs: InputWeights
    outputs: OutputWeights
    epsilon: float

    @classmethod
    def pack(cls, plain: BlockWeights) -> Self:
        """Bring the weights of one layer into the kernels' layout."""
        return cls(
            attention_gain=plain.attention_gain,
            ffn_gain=plain.ffn_gain,
            inputs=pack_inputs(
                plain.query,
                plain.key,
                plain.value,
                plain.gate,
                plain.up,
                head_size=plain.head_size,
            ),
            outputs=pack_outputs(plain.output, plain.down),
            epsilon=plain.epsilon,
        )

    def __call__(
        self, hidden: Tensor, rows: FusedRows, cache: KeyValues, context: BlockContext
    ) -> Tensor:
        """Run the block on its rows; the others pass unchanged.

        Args:
            hidden: the block's input, [T, D]; it becomes the output.
            rows: which rows do what.
            cache: keys and values of this layer; those of the batch are written into it.
            context: what the blocks share.

        Returns:
            `hidden`.
        """
        paged = PagedKeyValues(
            keys=cache.keys,
            values=cache.values,
            page_size=context.page_size,
            tables=rows.group.tables.device,
            positions=rows.group.positions,
            slots=rows.group.slots,
            factors=context.factors,
        )
        if rows.is_parallel:
            self._run_parallel(hidden, rows, paged, context)
            return hidden
        ffn_input = None if rows.ffn is None else self._room(hidden, rows.ffn, hidden.shape[1])
        normed = self._norm_early(hidden, rows, ffn_input)
        if normed is not None:
            self._attend(hidden, normed, rows, paged, context)
        if rows.ffn is not None and ffn_input is not None:
            if rows.late is not None:
                self._norm_ffn(hidden, rows.late, ffn_input)
            activation = self._room(hidden, rows.ffn, self.inputs.ffn_size)
            input_projection(
                self.inputs,
                Part.FFN,
                rows.ffn,
                Normed(ffn=ffn_input),
                Projected(activation=activation),
                bits=_BITS,
            )
            launch = Launch(rows.ffn, context.scratch, Work.FFN)
            output_projection(activation, self.outputs.down, hidden, launch)
        return hidden

    def _run_parallel(
        self, hidden: Tensor, rows: FusedRows, paged: PagedKeyValues, context: BlockContext
    ) -> None:
        """Run a block whose rows all do everything in the parallel form: two products."""
        assert rows.kv is not None
        assert rows.queries is not None
        selection, width = rows.kv, hidden.shape[1]
        attention_input = ffn_input = self._room(hidden, selection, width)
        targets = [Target(self.attention_gain, attention_input)]
        if not rows.shares_norm:
            ffn_input = self._room(hidden, selection, width)
            targets.append(Target(self.ffn_gain, ffn_input))
        norm_rows(hidden, targets, self.epsilon, selection)
        query_size = self.inputs.query_size
        query = self._room(hidden, selection, query_size)
        # What the output projection reads: mixed values, then activations.
        joined = self._room(hidden, selection, query_size + self.inputs.ffn_size)
        input_projection(
            self.inputs,
            Part.ALL,
            selection,
            Normed(attention_input, ffn_input),
            Projected(query, joined[:, query_size:]),
            paged,
        )
        self._mix(query, joined[:, :query_size], rows, paged, context)
        output_projection(joined, self.outputs.all, hidden, Launch(selection, context.scratch))

    def _norm_early(
        self, hidden: Tensor, rows: FusedRows, ffn_input: Tensor | None
    ) -> Tensor | None:
        """Normalise what reads the block's input; return that of the rows that project keys."""
        for early in rows.early:
            assert ffn_input is not None
            self._norm_ffn(hidden, early, ffn_input)
        if rows.kv is None:
            return None
        normed = self._room(hidden, rows.kv, hidden.shape[1])
        targets = [Target(self.attention_gain, normed, bits=Work.KV)]
        if rows.is_gated and ffn_input is not None:
            targets.append(Target(self.ffn_gain, ffn_input, bits=Work.PARALLEL))
            targets.append(Target(self.attention_gain, ffn_input, bits=Work.PARALLEL_SHARED))
        norm_rows(hidden, targets, self.epsilon, rows.kv)
        return normed

    def _norm_ffn(self, hidden: Tensor, norm: FfnNorm, ffn_input: Tensor) -> None:
        gain = self.attention_gain if norm.is_shared else self.ffn_gain
        target = Target(gain, ffn_input, bits=norm.bits)
        norm_rows(hidden, [target], self.epsilon, norm.selection, norm.places)

    def _attend(
        self,
        hidden: Tensor,
        normed: Tensor,
        rows: FusedRows,
        paged: PagedKeyValues,
        context: BlockContext,
    ) -> None:
        """Store keys and values, and add attention to the residual stream."""
        queries = rows.queries
        if queries is None:
            self._project(Part.KEY_VALUE, rows.kv, normed, paged)
            return
        query = self._room(hidden, queries.selection, self.inputs.query_size)
        if queries.selection is rows.kv:
            self._project(Part.QUERY_KEY_VALUE, rows.kv, normed, paged, query)
        else:
            self._project(Part.KEY_VALUE, rows.kv, normed, paged)
            normed = self._normed(hidden, queries.selection)
            self._project(Part.QUERY, queries.selection, normed, paged, query)
        mixed = self._room(hidden, queries.selection, self.inputs.query_size)
        self._mix(query, mixed, rows, paged, context)
        launch = Launch(queries.selection, context.scratch, Work.ATTENTION)
        output_projection(mixed, self.outputs.output, hidden, launch)

    def _project(
        self,
        part: Part,
        selection: Selection | None,
        normed: Tensor,
        paged: PagedKeyValues,
        query: Tensor | None = None,
    ) -> None:
        assert selection is not None
        input_projection(
            self.inputs, part, selection, Normed(normed), Projected(query), paged, _BITS
        )

    def _mix(
        self,
        query: Tensor,
        out: Tensor,
        rows: FusedRows,
        paged: PagedKeyValues,
        context: BlockContext,
    ) -> None:
        """Attend: rows alone in their sequence in one kernel, chunks in another."""
        assert rows.queries is not None
        queries: QueryRows = rows.queries
        # A row sees as many keys as its layer has kept before it, wherever it stands in the prompt.
        paged = replace(paged, positions=rows.group.places)
        by_head = query.view(len(query), self.inputs.num_heads, self.inputs.head_size)
        num_singles = 0
        if queries.singles is not None:
            num_singles = queries.singles.num_rows
            paged_decode(
                by_head[:num_singles],
                paged,
                out[:num_singles],
                Launch(queries.singles, context.scratch, Work.ATTENTION),
            )
        if queries.chunks is not None:
            assert queries.spans is not None
            paged_prefill(
                by_head[num_singles:],
                replace(paged, positions=paged.positions[queries.first_chunked :]),
                out[num_singles:],
                queries.chunks,
                queries.spans,
            )

    def queries(self, hidden: Tensor, paged: PagedKeyValues) -> Tensor:
        """Return the queries of rows [R, D] at positions, [R, H, C]."""
        every = Selection(len(hidden))
        query = self._room(hidden, every, self.inputs.query_size)
        self._project(Part.QUERY, every, self._normed(hidden, every), paged, query)
        return query.view(len(hidden), self.inputs.num_heads, self.inputs.head_size)

    def store(self, hidden: Tensor, paged: PagedKeyValues) -> None:
        """Store keys and values of rows [R, D]."""
        every = Selection(len(hidden))
        self._project(Part.KEY_VALUE, every, self._normed(hidden, every), paged)

    def _normed(self, hidden: Tensor, selection: Selection) -> Tensor:
        normed = self._room(hidden, selection, hidden.shape[1])
        norm_rows(hidden, [Target(self.attention_gain, normed)], self.epsilon, selection)
        return normed

    def _room(self, hidden: Tensor, selection: Selection, width: int) -> Tensor:
        return hidden.new_empty(selection.num_rows, width)
