"""Forwards that make Triton compile every kernel that traffic may launch.

A kernel is compiled once for each tile and for each set of optional arguments. So it is enough to
run one block on rows of every kind, with one number of rows for each tile. What these forwards
compute means nothing, and they store nothing.
"""

from collections.abc import Iterator

import numpy as np
import torch

from skipserve.model.batch import KvGroup, Segment
from skipserve.model.work import GatedWork, Indexes, RowWork, Work
from skipserve_kernels.fused import tiles
from skipserve_kernels.fused.tiles import Kernel
from skipserve_policies.sizes import DecoderSizes

_ATTENTION = Work.ATTENTION | Work.KV
_SERIAL = Work.FFN | Work.SERIAL
_PARALLEL = Work.FFN | Work.PARALLEL
_SHARED = Work.FFN | Work.PARALLEL_SHARED

# What most rows of a layer do, and what the last one does: every form that a layer may have.
_FORMS = (
    (_ATTENTION | _SERIAL, _ATTENTION | _SERIAL),
    (Work.KV | _SERIAL, Work.KV | _SERIAL),
    (_ATTENTION | _PARALLEL, _ATTENTION | _PARALLEL),
    (_ATTENTION | _SHARED, _ATTENTION | _SHARED),
    (_ATTENTION | _SERIAL, Work.KV | _SERIAL),
    (Work.KV | _SERIAL, Work(0)),
    (_ATTENTION | _SERIAL, Work(0)),
    (_ATTENTION | _PARALLEL, Work(0)),
    (_ATTENTION | _SHARED, Work(0)),
    (_ATTENTION | _PARALLEL, _ATTENTION | _SERIAL),
)
# Attention of chunks comes in one tile; what it writes to differs.
_CHUNK_FORMS = (_FORMS[0], _FORMS[2], _FORMS[4], _FORMS[7])


def warm_up_segments(
    sizes: DecoderSizes, dtype: torch.dtype, device: torch.device
) -> Iterator[Segment]:
    """Yield rows of one layer that launch every kernel in every form.

    Args:
        sizes: of the decoder.
        dtype: of its weights.
        device: whose architecture decides the tiles.
    """
    for num_rows in _row_counts(sizes, dtype, tiles.architecture(device)):
        for most, last in _FORMS:
            # The last row comes besides where the others are a selection.
            num_most = num_rows - (most == last)
            yield _segment(_work(most, num_most, last, device), num_most + 1, device)
        if num_rows <= tiles.MAX_FUSED_ROWS:
            gates = torch.zeros(1, num_rows, dtype=torch.int64, device=device)
            yield _segment(GatedWork(gates), num_rows, device)
    for most, last in _CHUNK_FORMS:
        yield _segment(_work(most, 1, last, device), 2, device, is_chunk=True)


def _work(most: Work, num_most: int, last: Work, device: torch.device) -> RowWork:
    bits = [[most.value] * num_most + [last.value]]
    return RowWork.of(np.array(bits, dtype=np.uint8), device)


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


def _segment(
    work: RowWork | GatedWork, num_rows: int, device: torch.device, *, is_chunk: bool = False
) -> Segment:
    """Return rows of one sequence, or each of its own, that lie nowhere."""
    row_starts = np.array([0, num_rows]) if is_chunk else np.arange(num_rows + 1)
    num_sequences = len(row_starts) - 1
    nowhere = torch.full((num_rows,), -1, dtype=torch.int64, device=device)
    tables = np.zeros((num_sequences, 1), dtype=np.int64)
    group = KvGroup(
        tables=Indexes(tables, torch.from_numpy(tables).to(device)),
        slots=nowhere,
        places=nowhere,
        positions=nowhere,
        num_cached=np.zeros(num_sequences, dtype=np.int64),
    )
    return Segment.whole(work, row_starts, group)
