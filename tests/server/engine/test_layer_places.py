"""Where rows of answers lie in each layer, by hand and as a step without graphs is told."""

import numpy as np
import pytest
import torch
from engine_parts import EngineParts
from fake_decoder import NUM_LAYERS, make_request

from skipserve.engine.inputs import StepRows, build_batch
from skipserve.engine.layer_places import layer_places
from skipserve_policies.narrowing import Narrowing, Stage
from skipserve_policies.schema import Dropper

pytestmark = pytest.mark.fast

FASTV = Narrowing(Dropper.FASTV, (Stage(1, 2),))
VTW = Narrowing(Dropper.VTW, (Stage(3, 0),))
PYRAMID = Narrowing(Dropper.PYRAMIDDROP, (Stage(1, 2), Stage(3, 1)), renumbers=True)
PAGE_SIZE = 4


def _answering(*narrowings: Narrowing | None) -> EngineParts:
    """Return requests about a picture of four rows, whose next step has a row of each answer."""
    parts = EngineParts(page_size=PAGE_SIZE)
    for number, narrowing in enumerate(narrowings):
        parts.add(make_request(str(number), num_text=3, num_images=1, narrowing=narrowing))
    parts.finish(parts.scheduler.schedule())
    return parts


def test_by_hand() -> None:
    """The first row of an answer, behind three of text, four of a picture and two of text."""
    parts = _answering(None, FASTV, VTW, PYRAMID)
    step = parts.scheduler.schedule()
    rows = StepRows.of(step, parts.tables)
    slots, places, positions = layer_places(step, rows, parts.tables, NUM_LAYERS)
    assert places.T.tolist() == [[9, 9, 9, 9], [9, 7, 7, 7], [9, 9, 9, 5], [9, 7, 7, 6]]
    assert positions.T.tolist() == [[9, 9, 9, 9], [9, 9, 9, 9], [9, 9, 9, 9], [9, 7, 7, 6]]
    for row, chunk in enumerate(step.chunks):
        pages = np.array(chunk.sequence.pages)
        wanted = pages[places[:, row] // PAGE_SIZE] * PAGE_SIZE + places[:, row] % PAGE_SIZE
        assert slots[:, row].tolist() == wanted.tolist()
    assert len(set(slots.ravel().tolist())) == 1 + 2 + 2 + 3


@pytest.mark.parametrize("narrowings", [(None,), (None, FASTV, VTW, PYRAMID), (PYRAMID, PYRAMID)])
def test_as_without_graphs(narrowings: tuple[Narrowing | None, ...]) -> None:
    parts = _answering(*narrowings)
    last_tokens = torch.zeros(parts.tables.num_seats, dtype=torch.int64)
    for _ in range(3):
        step = parts.scheduler.schedule()
        rows = StepRows.of(step, parts.tables)
        found = layer_places(step, rows, parts.tables, NUM_LAYERS)
        batch = build_batch(step, rows, parts.tables, parts.plans, None, last_tokens).batch
        (segment,) = batch.segments
        groups = [segment.kv_group(layer) for layer in range(NUM_LAYERS)]
        for numbers, name in zip(found, ("slots", "places", "positions"), strict=True):
            wanted = np.stack([getattr(group, name).numpy() for group in groups])
            assert (numbers == wanted).all(), name
        parts.finish(step)
