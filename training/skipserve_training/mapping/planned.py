"""Runs blocks as a plan says, with gradients. The rows' work is derived as the engine derives it.

Shapes: B sequences, T rows each, D hidden; rows are numbered through all B x T.
"""

from collections.abc import Sequence

from torch import Tensor

from skipserve.model.work import Every, LayerRows, RowWork, put, take
from skipserve_training.mapping.blocks import Block, Sight

# All rows run all of a block.
EVERYTHING = LayerRows()


def run_blocks(blocks: Sequence[Block], work: RowWork, hidden: Tensor, sight: Sight) -> Tensor:
    """Run all blocks on the rows [B, T, D] that need them; the others pass unchanged."""
    remembered = hidden.flatten(0, 1)[:0]
    for layer, block in enumerate(blocks):
        rows = work.kinds[work.kind_of[layer]]
        if rows.is_idle:
            continue
        if not rows.is_paired:
            hidden = run_block(block, rows, hidden, sight)
            continue
        before = hidden.flatten(0, 1)
        entering = put(before, rows.pair_second, remembered)
        remembered = take(entering, rows.pair_first)
        ran = run_block(block, rows, entering.view(hidden.shape), sight).flatten(0, 1)
        first, second = take(before, rows.pair_second), take(ran, rows.pair_second)
        hidden = put(ran, rows.pair_second, first.lerp(second, 0.5)).view(hidden.shape)
    return hidden


def run_block(block: Block, rows: LayerRows, hidden: Tensor, sight: Sight) -> Tensor:
    """Run one block on the rows [B, T, D] that need it.

    Attention is computed for all rows, and taken where it is wanted: a row that only projects
    keys and values is seen by the others, and no row sees one that does not.
    """
    entered = attended = hidden.flatten(0, 1)
    if rows.attention is not Every.NONE:
        grown = block.add_attention(hidden, sight).flatten(0, 1)
        attended = put(entered, rows.attention, take(grown, rows.attention))
    left = attended
    for fed, source, norm in (
        (rows.serial, attended, block.own_norm),
        (rows.parallel, entered, block.own_norm),
        (rows.parallel_shared, entered, block.shared_norm),
    ):
        if fed is not Every.NONE:
            left = put(left, fed, block.add_ffn(norm(take(source, fed)), take(attended, fed)))
    return left.view(hidden.shape)
