"""One layer of a decoder, for rows that do different things. Knows no policy and no family.

Shapes: T rows, D hidden.
"""

from dataclasses import dataclass

from torch import Tensor

from skipserve.model.plain.attention import AttentionPart
from skipserve.model.plain.ffn import Ffn
from skipserve.model.plain.norm import Norm
from skipserve.model.plain.rows import BlockRows
from skipserve.model.work import Every, LayerRows, put, take
from skipserve_kernels.key_values import KeyValues


@dataclass(frozen=True, slots=True)
class DecoderBlock:
    """One layer: its parts and what to do with them.

    Attributes:
        attention: with its own normalisation.
        ffn_norm: of what the FFN is fed.
        shared_norm: the same for rows whose FFN reads through the attention's normalisation.
    """

    attention: AttentionPart
    ffn_norm: Norm
    shared_norm: Norm
    ffn: Ffn

    def __call__(self, hidden: Tensor, block: BlockRows, cache: KeyValues) -> Tensor:
        """Run the block on its rows; the others pass unchanged.

        Args:
            hidden: the block's input, [T, D].
            block: which rows do what.
            cache: keys and values of this layer; those of the batch are written into it.

        Returns:
            [T, D].
        """
        rows = block.rows
        attended = hidden
        if rows.kv is not Every.NONE:
            attended = self.attention.add(hidden, block, cache)
        if rows.ffn is Every.NONE:
            return attended
        fed = self._ffn_input(hidden, attended, rows)
        return put(attended, rows.ffn, self.ffn.add(fed, take(attended, rows.ffn)))

    def _ffn_input(self, hidden: Tensor, attended: Tensor, rows: LayerRows) -> Tensor:
        """Return what the FFN's rows feed it, normalised."""
        if rows.parallel_shared is Every.ALL:
            return self.shared_norm(take(hidden, rows.ffn))
        if rows.parallel is not Every.NONE:
            attended = put(attended, rows.parallel, take(hidden, rows.parallel))
        if rows.parallel_shared is Every.NONE:
            return self.ffn_norm(take(attended, rows.ffn))
        shared = self.shared_norm(take(hidden, rows.parallel_shared))
        own = self.ffn_norm(attended)
        return take(put(own, rows.parallel_shared, shared), rows.ffn)
