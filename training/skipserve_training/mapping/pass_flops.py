"""What a pass of a training costs, in FLOPs, as the training code runs it: `planned.py`.

One multiply-add is two; matrix products only. Where a row attends, all rows of its tree do, to all;
the FFN is run by those that need it. Going back, each frozen matrix is multiplied once, for its
inputs alone, and attention's products twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from skipserve_policies.flops import head_flops
from skipserve_policies.plan import Ffn, Plan, TokenClass
from skipserve_policies.sizes import DecoderSizes, MappingSizes


@dataclass(frozen=True)
class Pass:
    """Rows of equal trees that go through the language model together.

    Attributes:
        rows: of all trees, by class.
        length: rows of one tree.
        predicted: rows that the head reads.
    """

    rows: Mapping[TokenClass, int]
    length: int
    predicted: int

    def forward_flops(self, sizes: DecoderSizes, plan: Plan) -> int:
        """Return what it costs to predict tokens."""
        blocks = sum(self._linears(sizes, plan)) + sum(self._products(sizes, plan))
        return blocks + self._ends(sizes)

    def backward_flops(self, sizes: DecoderSizes, plan: Plan) -> int:
        """Return what it costs to bring gradients back to the embeddings."""
        blocks = sum(self._linears(sizes, plan)) + 2 * sum(self._products(sizes, plan))
        return blocks + self._ends(sizes)

    @property
    def num_rows(self) -> int:
        """Return the rows of all trees."""
        return sum(self.rows.values())

    def _linears(self, sizes: DecoderSizes, plan: Plan) -> Iterator[int]:
        d, d_q = sizes.hidden_size, sizes.num_heads * sizes.head_dim
        attention = 4 * d * (d_q + sizes.num_kv_heads * sizes.head_dim)
        ffn = 2 * (3 if sizes.is_gated else 2) * d * sizes.ffn_size
        for layer in range(plan.num_layers):
            if self._attends(plan, layer):
                yield self.num_rows * attention
            yield ffn * sum(
                count
                for kind, count in self.rows.items()
                if plan.cell(layer, kind).ffn is not Ffn.NONE
            )

    def _products(self, sizes: DecoderSizes, plan: Plan) -> Iterator[int]:
        """Yield attention's of each layer: queries by keys, and what comes of them by values."""
        for layer in range(plan.num_layers):
            if self._attends(plan, layer):
                yield 4 * self.num_rows * self.length * sizes.num_heads * sizes.head_dim

    def _attends(self, plan: Plan, layer: int) -> bool:
        return any(count and plan.cell(layer, kind).attention for kind, count in self.rows.items())

    def _ends(self, sizes: DecoderSizes) -> int:
        """Count the head, and the matrices between embeddings and blocks of different widths."""
        entering = 0
        if sizes.word_size is not None:
            entering = 2 * sizes.word_size * sizes.hidden_size * self.num_rows
            # All rows leave the blocks, though the head reads some.
            entering += 2 * sizes.word_size * sizes.hidden_size * (self.num_rows - self.predicted)
        return entering + head_flops(sizes, self.predicted)


def module_flops(sizes: MappingSizes, num_features: int, d_vis: int, d_llm: int) -> int:
    """Return what a mapping module costs a medium of so many encoder rows, all of them to the end.

    Going back costs twice that, but for the first matrix, whose inputs are not trained.
    """
    w, queries = sizes.hidden_size, sizes.num_queries
    rows = num_features + queries
    layer = 8 * rows * w * w + 4 * rows * rows * w + 4 * rows * w * sizes.ffn_size
    ends = 2 * num_features * d_vis * w + 2 * queries * d_vis * (w + d_llm)
    return ends + sizes.num_layers * layer
