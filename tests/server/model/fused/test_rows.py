"""What the kernels of a block are told of its rows."""

import numpy as np
import pytest
import torch
from meta_device import META, NoWaiting

from skipserve.model.batch import Batch, Every, Indexes, KvGroup, LayerRows
from skipserve.model.fused.rows import FfnNorm, FusedRows, prepare_rows

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
IDLE = LayerRows(attention=Every.NONE, kv=Every.NONE, ffn=Every.NONE)


def rows_of(numbers: list[int], device: torch.device = CPU) -> Indexes:
    host = np.array(numbers)
    return Indexes(host, torch.from_numpy(host).to(device))


def prepare(*layers: LayerRows, device: torch.device = CPU) -> list[FusedRows | None]:
    """Two decode rows and a chunk of five, in tiles of four."""
    numbers = torch.empty(7, dtype=torch.int64, device=device)
    group = KvGroup(Indexes(np.zeros((3, 1), np.int64), numbers[:3, None]), numbers)
    batch = Batch(
        token_ids=numbers,
        positions=numbers,
        row_starts=(0, 1, 2, 7),
        num_cached=(3, 4, 0),
        visual_rows=numbers[:0],
        visual_features=None,
        layers=layers,
        kv_group=(group,) * len(layers),
        logit_rows=numbers[:0],
    )
    return prepare_rows(batch, span_rows=4)


def index_and_places(norm: FfnNorm | None) -> tuple[list[int] | None, list[int] | None]:
    assert norm is not None
    index, places = norm.selection.index, norm.places
    return None if index is None else index.tolist(), None if places is None else places.tolist()


def test_each_kind_of_row_is_told_its_place_in_the_ffn() -> None:
    some = LayerRows(
        ffn=rows_of([0, 2, 3, 5, 6]), parallel=rows_of([2]), parallel_shared=rows_of([0, 6])
    )
    (rows,) = prepare(some)
    assert rows is not None
    assert [index_and_places(norm) for norm in rows.early] == [([2], [1]), ([0, 6], [0, 4])]
    assert [norm.is_shared for norm in rows.early] == [False, True]
    assert index_and_places(rows.late) == ([3, 5], [2, 3])


def test_rows_that_are_all_of_the_ffn_need_no_places() -> None:
    own = rows_of([0, 3])
    serial, parallel, both = prepare(
        LayerRows(ffn=own),
        LayerRows(ffn=own, parallel=own),
        LayerRows(parallel=own, parallel_shared=rows_of([1, 2, 4, 5, 6])),
    )
    assert serial is not None
    assert parallel is not None
    assert both is not None
    assert index_and_places(serial.late) == ([0, 3], None)
    assert [index_and_places(norm) for norm in parallel.early] == [([0, 3], None)]
    assert serial.early == ()
    assert parallel.late is both.late is None


def test_chunks_are_cut_into_tiles_and_rows_on_their_own_are_not() -> None:
    every, some, none = prepare(LayerRows(), LayerRows(attention=rows_of([1, 3, 6])), IDLE)
    assert every is not None
    assert some is not None
    assert none is None
    for rows, num_singles, spans in (
        (every, 2, [[2, 0, 4], [2, 4, 1]]),
        (some, 1, [[2, 0, 2]]),
    ):
        queries = rows.queries
        assert queries is not None
        assert queries.singles is not None
        assert queries.spans is not None
        assert queries.singles.num_rows == num_singles
        assert queries.spans.tolist() == spans


def test_one_copy_serves_all_layers() -> None:
    def layer(row: int) -> LayerRows:
        parallel, shared = rows_of([row], META), rows_of([row + 1], META)
        return LayerRows(attention=parallel, parallel=parallel, parallel_shared=shared)

    for layers in ([layer(0)], [layer(row) for row in range(6)]):
        with NoWaiting() as device:
            prepare(*layers, device=META)
        assert device.num_copies == 1
    with NoWaiting() as device:
        prepare(IDLE, device=META)
    assert device.num_copies == 0
