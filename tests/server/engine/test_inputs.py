"""Batches against a plain reading of the plans, row by row."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from engine_parts import EngineParts
from fake_decoder import EOS_ID, IMAGE_ID, NUM_LAYERS, make_request
from hypothesis import given
from hypothesis import strategies as st
from model_batches import row_does
from plan_strategies import plans
from row_sets import members

from skipserve.engine.inputs import StepRows, build_batch
from skipserve.engine.request import Request
from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve.model.batch import Batch, Segment
from skipserve.model.work import Every, RowSet, RowWork, Work
from skipserve_policies.plan import TokenClass, trim

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
LAST_TOKENS = torch.arange(8) + 40


@dataclass(frozen=True)
class Built:
    """A step, the batch made of it, and what each of its rows is."""

    parts: EngineParts
    step: Step
    batch: Batch

    @property
    def segment(self) -> Segment:
        """All layers."""
        (segment,) = self.batch.segments
        return segment

    @property
    def rows(self) -> list[tuple[Sequence, int]]:
        """The sequence and the position of each row."""
        chunks = self.step.chunks
        return [(c.sequence, place) for c in chunks for place in range(c.start, c.stop)]


def _build(parts: EngineParts) -> Built:
    step = parts.scheduler.schedule()
    rows = StepRows.of(step, parts.tables)
    inputs = build_batch(step, rows, parts.tables, parts.plans, None, LAST_TOKENS)
    return Built(parts, step, inputs.batch)


def _class(sequence: Sequence, position: int) -> TokenClass:
    if position >= sequence.num_prompt:
        return TokenClass.GENERATED
    return sequence.request.token_classes[position]


def _token(sequence: Sequence, position: int) -> int:
    return [*sequence.request.prompt_ids, *sequence.generated_ids][position]


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    plan = draw(plans(NUM_LAYERS))
    return make_request(
        num_text=draw(st.integers(0, 9)),
        num_images=draw(st.integers(0, 2)),
        max_tokens=draw(st.integers(1, 6)),
        plan=trim(plan) if draw(st.booleans()) else plan,
    )


@st.composite
def _built(draw: st.DrawFn) -> Built:
    """Draw a batch of sequences in any state, with plans of their own, some pages shared."""
    parts = EngineParts(num_pages=draw(st.integers(12, 40)), max_rows=draw(st.integers(1, 30)))
    waiting = draw(st.lists(_requests(), min_size=1, max_size=4))
    for place, request in enumerate(waiting):
        parts.add(replace(request, id=str(place)))
        for _ in range(draw(st.integers(0, 3))):
            parts.finish(parts.scheduler.schedule(), token_id=IMAGE_ID, publishes=True)
    # So that there is something left to do.
    parts.add(make_request("last"))
    return _build(parts)


@given(_built())
def test_each_row_does_what_its_plan_says(built: Built) -> None:
    rows = [(s.plan.plan, _class(s, position)) for s, position in built.rows]
    assert built.segment.layers == range(NUM_LAYERS)
    for layer in built.segment.layers:
        wanted = [row_does(plan, layer, token_class) for plan, token_class in rows]
        for bit, doing in zip(Work, built.segment.rows(layer), strict=True):
            expected = [row for row, work in enumerate(wanted) if bit in work]
            assert members(doing, len(rows)) == expected


@given(_built())
def test_what_is_the_same_shares_one_object(built: Built) -> None:
    pairs = {(s.plan.plan, _class(s, position)) for s, position in built.rows}
    columns = [tuple(row_does(plan, layer, c) for plan, c in pairs) for layer in range(NUM_LAYERS)]
    work = built.segment.work
    assert isinstance(work, RowWork)
    assert len(work.kinds) == len(set(columns))
    assert len(built.segment.kv_groups) == 1
    by_content: dict[tuple[int, ...], RowSet] = {}
    for rows in (rows for kind in work.kinds for rows in kind):
        if not isinstance(rows, Every):
            assert by_content.setdefault(tuple(rows.host.tolist()), rows) is rows


@given(_built())
def test_rows_know_their_place(built: Built) -> None:
    segment, page_size = built.segment, built.parts.tables.page_size
    (group,) = segment.kv_groups
    assert built.batch.token_ids.tolist() == [_token(*row) for row in built.rows]
    assert group.positions.tolist() == [position for _, position in built.rows]
    slots = [s.pages[p // page_size] * page_size + p % page_size for s, p in built.rows]
    assert group.slots.tolist() == slots
    assert len(set(slots)) == len(slots), "two rows would be written into one slot"
    counts = [stop - start for start, stop in pairwise(segment.row_starts)]
    chunks = built.step.chunks
    assert counts == [sum(s is chunk.sequence for s, _ in built.rows) for chunk in chunks]
    assert group.num_cached.tolist() == [chunk.start for chunk in chunks]
    ends = zip(segment.row_starts[1:], chunks, strict=True)
    assert built.batch.logit_rows.tolist() == [stop - 1 for stop, chunk in ends if chunk.samples]


@given(_built())
def test_tables_hold_all_pages_that_a_sequence_sees(built: Built) -> None:
    page_size = built.parts.tables.page_size
    for row, chunk in enumerate(built.step.chunks):
        sequence = chunk.sequence
        num_pages = -(-sequence.num_computed // page_size)
        table = built.segment.kv_groups[0].tables.device[row, :num_pages]
        assert table.tolist() == sequence.pages[:num_pages]


@given(_built())
def test_visual_rows_are_those_of_the_prompt(built: Built) -> None:
    """An answer may hold an image token, which shows nothing."""
    expected = [
        row
        for row, (s, position) in enumerate(built.rows)
        if position < s.num_prompt and s.request.prompt_ids[position] == IMAGE_ID
    ]
    assert built.batch.visual_rows.tolist() == expected
    assert built.batch.visual_rows.dtype == torch.int64


def test_an_image_may_end_the_prompt() -> None:
    asking = make_request(num_text=1, num_images=1)
    ids = (5, 6, 7, *(IMAGE_ID,) * 4)
    parts = EngineParts()
    parts.add(replace(asking, prompt_ids=ids))
    assert _build(parts).batch.visual_rows.tolist() == [3, 4, 5, 6]


def test_the_first_row_is_the_last_token_of_one() -> None:
    parts = EngineParts()
    parts.add(replace(make_request(), prompt_ids=(EOS_ID,), token_classes=(TokenClass.LAST,)))
    batch = _build(parts).batch
    assert batch.logit_rows.tolist() == [0]
    assert batch.token_ids.tolist() == [EOS_ID]


def test_a_step_of_mere_chunks_wants_no_logits() -> None:
    parts = EngineParts(max_rows=3)
    parts.add(make_request(num_text=9))
    assert _build(parts).batch.logit_rows.tolist() == []


def test_indexes_are_what_the_model_reads() -> None:
    parts = EngineParts()
    parts.add(make_request(num_images=1))
    built = _build(parts)
    batch, segment = built.batch, built.segment
    group = segment.kv_groups[0]
    tables = group.tables.device
    for tensor in (batch.token_ids, group.positions, group.slots, tables, batch.logit_rows):
        assert tensor.dtype == torch.int64
        assert tensor.device == CPU
    assert tables.shape == (1, -(-segment.row_starts[-1] // parts.tables.page_size))
    assert np.prod(tables.shape) > 0


def test_a_token_that_only_the_device_knows_is_taken_from_there() -> None:
    parts = EngineParts(reuses_prefixes=False)
    parts.add(make_request("a"))
    parts.scheduler.schedule()
    parts.add(make_request("b"))
    built = _build(parts)
    seat = built.step.chunks[0].sequence.seat
    assert built.batch.token_ids.tolist() == [40 + seat, *built.step.chunks[1].sequence.known_ids]
