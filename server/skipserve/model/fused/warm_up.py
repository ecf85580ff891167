"""Forwards that make Triton compile every kernel that traffic may launch.

A kernel is compiled once for each tile and for each set of optional arguments. So it is enough to
run one block on rows of every kind, with one number of rows for each tile. What these forwards
compute means nothing, and they store nothing.
"""

from collections.abc import Iterator

import numpy as np
import torch

from skipserve.model.batch import Batch, Every, Indexes, KvGroup, LayerRows
from skipserve_kernels import tiles
from skipserve_kernels.tiles import Kernel
from skipserve_policies.sizes import DecoderSizes


def warm_up_batches(
    sizes: DecoderSizes, dtype: torch.dtype, device: torch.device
) -> Iterator[Batch]:
    """Yield forwards of one layer that launch every kernel in every form.

    Args:
        sizes: of the decoder.
        dtype: of its weights.
        device: whose architecture decides the tiles.
    """
    for num_rows in _row_counts(sizes, dtype, tiles.architecture(device)):
        for rows in _layers(num_rows, device):
            yield _batch(_num_rows(rows, num_rows), rows, device)
        if num_rows <= tiles.MAX_FUSED_ROWS:
            yield _batch(num_rows, LayerRows(), device, is_gated=True)
    # Attention of chunks comes in one tile; what it writes to differs.
    some = _some(1, device)
    for rows in (
        LayerRows(),
        LayerRows(attention=some),
        LayerRows(parallel=Every.ALL),
        LayerRows(attention=some, kv=some, ffn=some, parallel=some),
    ):
        yield _batch(2, rows, device, is_chunk=True)


def _row_counts(sizes: DecoderSizes, dtype: torch.dtype, arch: int) -> list[int]:
    """Return one number of rows for each choice of tiles, and one that the library computes."""
    found = {}
    for num_rows in range(tiles.MAX_FUSED_ROWS + 1, 0, -1):
        choice = (
            tiles.projection_tile(Kernel.INPUT_PROJECTION, num_rows, dtype, arch),
            tiles.projection_tile(Kernel.OUTPUT_PROJECTION, num_rows, dtype, arch),
            tiles.decode_tile(num_rows, sizes.num_kv_heads, arch),
        )
        found[choice] = num_rows
    return sorted(found.values())


def _layers(num_rows: int, device: torch.device) -> Iterator[LayerRows]:
    """Yield all that a layer may be told, with sets of so many rows."""
    yield LayerRows()
    yield LayerRows(attention=Every.NONE)
    yield LayerRows(parallel=Every.ALL)
    yield LayerRows(parallel_shared=Every.ALL)
    some = _some(num_rows, device)
    yield LayerRows(attention=some)
    yield LayerRows(attention=Every.NONE, kv=some, ffn=some)
    yield LayerRows(attention=some, kv=some, ffn=some)
    yield LayerRows(attention=some, kv=some, ffn=some, parallel=some)
    yield LayerRows(attention=some, kv=some, ffn=some, parallel_shared=some)
    yield LayerRows(parallel=some)


def _some(num_rows: int, device: torch.device) -> Indexes:
    host = np.arange(num_rows)
    return Indexes(host, torch.from_numpy(host).to(device))


def _num_rows(rows: LayerRows, num_some: int) -> int:
    """Return how many rows a forward needs for its sets to be some of them."""
    return num_some + any(isinstance(it, Indexes) for it in vars(rows).values())


def _batch(
    num_rows: int,
    rows: LayerRows,
    device: torch.device,
    *,
    is_chunk: bool = False,
    is_gated: bool = False,
) -> Batch:
    """Return rows of one sequence, or each of its own, that lie nowhere."""
    row_starts = (0, num_rows) if is_chunk else tuple(range(num_rows + 1))
    num_sequences = len(row_starts) - 1
    nowhere = torch.full((num_rows,), -1, dtype=torch.int64, device=device)
    nothing = torch.zeros(num_rows, dtype=torch.int64, device=device)
    tables = Indexes(np.zeros((num_sequences, 1), np.int64), nothing[:num_sequences, None])
    return Batch(
        token_ids=nothing,
        positions=nowhere,
        row_starts=row_starts,
        num_cached=(0,) * num_sequences,
        visual_rows=nothing[:0],
        visual_features=None,
        layers=(rows,),
        kv_group=(KvGroup(tables, nowhere),),
        logit_rows=nothing[:0],
        gates=nothing[None] if is_gated else None,
    )
