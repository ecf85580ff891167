"""What running sequences hold, as arrays."""

import pytest
from engine_parts import EngineParts, make_sequence
from fake_decoder import NUM_LAYERS, make_request

from skipserve.engine.plans import PlanTable
from skipserve.engine.sequence import NO_SEAT
from skipserve.engine.tables import UNREAD
from skipserve_policies.plan import Cell, Ffn, Plan, TokenClass

pytestmark = pytest.mark.fast


def test_a_placed_sequence_is_entered_whole() -> None:
    tables = EngineParts(max_running=2).tables
    plans = PlanTable(NUM_LAYERS)
    for cell in (Cell(), Cell(ffn=Ffn.NONE), Cell(attention=False)):
        plans.acquire(Plan(((cell,) * NUM_LAYERS,) * len(TokenClass)))
    sequence = make_sequence(make_request(num_text=2, num_images=1), plans=plans)
    sequence.generated_ids = [40, 41]
    tables.place(sequence)
    tables.extend(sequence, [5, 6])
    tables.extend(sequence, [2])
    seat = sequence.seat
    known = [*sequence.request.prompt_ids, 40, 41]
    assert tables.token_ids[seat, : len(known)].tolist() == known
    classes = [*sequence.request.token_classes, *(TokenClass.GENERATED,) * 56]
    assert tables.columns[seat].tolist() == [12 + c for c in classes]
    assert tables.pages[seat, :3].tolist() == sequence.pages == [5, 6, 2]
    assert tables.num_free == 1


def test_a_seat_can_be_had_again_and_shows_nothing_of_the_one_before() -> None:
    tables = EngineParts(max_running=1).tables
    before, after = make_sequence(make_request(num_text=20)), make_sequence(make_request())
    tables.place(before)
    seat = before.seat
    tables.clear(before)
    assert (before.seat, tables.num_free) == (NO_SEAT, 1)
    tables.place(after)
    assert after.seat == seat
    assert set(tables.token_ids[seat, after.num_prompt :].tolist()) == {UNREAD}
