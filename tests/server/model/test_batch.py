"""The layers of a segment."""

import numpy as np
import pytest
import torch
from row_sets import indexes_of

from skipserve.model.batch import KvGroup, Segment
from skipserve.model.work import LayerRows, RowWork

pytestmark = pytest.mark.fast

NUM_ROWS = 2
WORK = RowWork.of(np.array([[7, 7], [7, 3], [0, 0], [7, 7]], dtype=np.uint8))


def _group() -> KvGroup:
    slots = torch.arange(NUM_ROWS)
    tables = indexes_of(np.zeros((1, 1), np.int64))
    return KvGroup(tables, slots, slots, slots, num_cached=np.array([0]))


def _prepared(segment: Segment) -> tuple[dict[int, int], list[tuple[LayerRows, KvGroup]]]:
    """Return what each layer gets, as the place among what was made, and what of."""
    made: list[tuple[LayerRows, KvGroup]] = []

    def make(rows: LayerRows, group: KvGroup) -> int:
        made.append((rows, group))
        return len(made) - 1

    return segment.prepare(make), made


def test_layers_that_agree_share_and_idle_ones_have_nothing() -> None:
    group = _group()
    segment = Segment.whole(WORK, np.array([0, NUM_ROWS]), group)
    by_layer, made = _prepared(segment)
    assert by_layer == {0: 0, 1: 1, 3: 0}
    assert made == [(segment.rows(0), group), (segment.rows(1), group)]


def test_layers_whose_keys_lie_elsewhere_do_not_share() -> None:
    groups = _group(), _group()
    segment = Segment(range(1, 4), WORK, np.array([0, NUM_ROWS]), groups, kv_group_of=(0, 0, 0, 1))
    by_layer, made = _prepared(segment)
    assert by_layer == {1: 0, 3: 1}
    assert [group for _, group in made] == list(groups)
