"""What the kernels of a block are told of its rows."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from meta_device import META, NoWaiting

from skipserve.model.batch import KvGroup, Segment
from skipserve.model.fused.rows import FfnNorm, FusedRows, prepare_rows
from skipserve.model.work import Indexes, Pattern, RowWork, Work

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
NUM_ROWS = 7
ATTENTION = Work.ATTENTION | Work.KV
SERIAL = Work.FFN | Work.SERIAL
PARALLEL = Work.FFN | Work.PARALLEL
SHARED = Work.FFN | Work.PARALLEL_SHARED
IDLE = (Work(0),) * NUM_ROWS


def segment_of(work: RowWork, device: torch.device = CPU) -> Segment:
    """Two decode rows and a chunk of five."""
    numbers = torch.empty(NUM_ROWS, dtype=torch.int64, device=device)
    tables = Indexes(np.zeros((3, 1), np.int64), numbers[:3, None])
    group = KvGroup(tables, numbers, numbers, numbers, num_cached=np.array([3, 4, 0]))
    return Segment.whole(work, np.array([0, 1, 2, 7]), group)


def bits(*layers: Sequence[Work]) -> np.ndarray:
    return np.array(layers, dtype=np.uint8)


def prepare(*layers: Sequence[Work]) -> dict[int, FusedRows]:
    """What each layer needs, given the work of each row; tiles are of four rows."""
    return prepare_rows(segment_of(RowWork.of(bits(*layers))), span_rows=4)


def only(*places: int, does: Work) -> list[Work]:
    """Rows of which only some do something besides attention."""
    return [ATTENTION | (does if row in places else Work(0)) for row in range(NUM_ROWS)]


def index_and_places(norm: FfnNorm | None) -> tuple[list[int] | None, list[int] | None]:
    assert norm is not None
    index, places = norm.selection.index, norm.places
    return None if index is None else index.tolist(), None if places is None else places.tolist()


def test_each_kind_of_row_is_told_its_place_in_the_ffn() -> None:
    some = only(0, 6, does=SHARED)
    some[2] |= PARALLEL
    some[3] |= SERIAL
    some[5] |= SERIAL
    rows = prepare(some)[0]
    assert [index_and_places(norm) for norm in rows.early] == [([2], [1]), ([0, 6], [0, 4])]
    assert [norm.is_shared for norm in rows.early] == [False, True]
    assert index_and_places(rows.late) == ([3, 5], [2, 3])


def test_rows_that_are_all_of_the_ffn_need_no_places() -> None:
    both = [ATTENTION | (PARALLEL if row in (0, 3) else SHARED) for row in range(NUM_ROWS)]
    rows = prepare(only(0, 3, does=SERIAL), only(0, 3, does=PARALLEL), both)
    assert index_and_places(rows[0].late) == ([0, 3], None)
    assert [index_and_places(norm) for norm in rows[1].early] == [([0, 3], None)]
    assert rows[0].early == ()
    assert rows[1].late is rows[2].late is None
    assert [index_and_places(norm)[1] for norm in rows[2].early] == [[0, 3], [1, 2, 4, 5, 6]]


def test_chunks_are_cut_into_tiles_and_rows_on_their_own_are_not() -> None:
    some = [SERIAL | (ATTENTION if row in (1, 3, 6) else Work.KV) for row in range(NUM_ROWS)]
    rows = prepare([ATTENTION | SERIAL] * NUM_ROWS, some, IDLE)
    assert list(rows) == [0, 1]
    for layer, num_singles, spans in ((0, 2, [[2, 0, 4], [2, 4, 1]]), (1, 1, [[2, 0, 2]])):
        queries = rows[layer].queries
        assert queries is not None
        assert queries.singles is not None
        assert queries.spans is not None
        assert queries.singles.num_rows == num_singles
        assert queries.spans.tolist() == spans


def test_one_copy_serves_all_layers() -> None:
    def layer(row: int) -> list[Work]:
        """Attention in two rows, the FFN of one of which is parallel, of the other shared."""
        work = [SERIAL] * NUM_ROWS
        work[row], work[row + 1] = ATTENTION | PARALLEL, ATTENTION | SHARED
        return work

    for layers, num_copies in (
        ([layer(0)], 1),
        ([layer(row) for row in range(6)], 1),
        ([IDLE], 0),
    ):
        columns = bits(*layers).T
        pattern = Pattern.find(columns, np.ones(NUM_ROWS, dtype=np.bool_))
        indexes = pattern.indexes(np.arange(NUM_ROWS))
        sets = [Indexes(it, torch.from_numpy(it).to(META)) for it in indexes]
        segment = segment_of(RowWork.select(pattern, sets), META)
        with NoWaiting() as device:
            prepare_rows(segment, span_rows=4)
        assert device.num_copies == num_copies
