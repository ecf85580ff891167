"""Events, made by hand, go to parts by what is innermost."""

import numpy as np
import pytest
from splitting.parts import Part
from splitting.trace import Event, Piece, Profiled, split, typical_seconds
from splitting.watched import FORWARD, PICTURE, STEP

pytestmark = pytest.mark.fast


def seconds_by_part(pieces: list[Piece]) -> dict[Part, float]:
    found: dict[Part, float] = {}
    for piece in pieces:
        found[piece.part] = found.get(piece.part, 0) + piece.seconds
    return {part: seconds for part, seconds in found.items() if seconds}


def test_time_goes_to_the_innermost_operation() -> None:
    events = [
        Event("aten::add", 0, 1),  # before any step
        Event(STEP, 1, 30),
        Event(PICTURE, 2, 8),
        Event("aten::mm", 3, 6),
        Event(FORWARD, 10, 25),
        Event("aten::linear", 11, 18),
        Event("aten::mm", 12, 17),
        Event("aten::add", 18, 21),
        Event("aten::never_heard_of", 22, 23),
        Event("aten::argmax", 26, 28),
    ]
    pieces = list(split(events, on_device=False))
    assert seconds_by_part(pieces) == {
        Part.HOST: 1 + 2 + 5,
        Part.PICTURE: 6,
        Part.CALLS: 1 + 2 + 1 + 2,  # within linear too
        Part.ARITHMETIC: 5,
        Part.ELEMENTWISE: 3,
        Part.OTHER: 1,
    }
    assert sum(piece.seconds for piece in pieces) == 29


def test_steps_are_told_apart() -> None:
    events = [Event(STEP, 0, 2), Event(STEP, 5, 6), Event(STEP, 6, 10)]
    assert [(piece.step, piece.seconds) for piece in split(events, on_device=False)] == [
        (0, 2),
        (1, 1),
        (2, 4),
    ]


def test_kernels_of_a_device_fill_the_same_parts() -> None:
    events = [
        Event(STEP, 0, 20),
        Event(PICTURE, 0, 4),
        Event("sm90_xmma_gemm_bf16", 0, 3),
        Event(FORWARD, 5, 15),
        Event("_norm_row", 5, 6),
        Event("_project", 7, 12),
        Event("_decode", 12, 15),
        Event("void at::native::reduce_kernel", 17, 18),
    ]
    assert seconds_by_part(list(split(events, on_device=True))) == {
        Part.PICTURE: 4,
        Part.ELEMENTWISE: 1 + 1,  # in no forward: a graph's, or the sampler's
        Part.CALLS: 1,
        Part.ARITHMETIC: 5,
        Part.ATTENTION: 3,
        Part.HOST: 5,
    }


def test_ranges_of_one_length_hold_each_other_in_their_order() -> None:
    events = [Event("_project", 0, 2), Event(FORWARD, 0, 2), Event(STEP, 0, 2)]
    assert seconds_by_part(list(split(events, on_device=True))) == {Part.ARITHMETIC: 2}


def run(*pieces: tuple[Part, float]) -> Profiled:
    return Profiled.of(Piece(0, part, str(part), seconds) for part, seconds in pieces)


def test_an_interruption_of_a_short_piece_does_not_count() -> None:
    calm = run((Part.CALLS, 1e-5), (Part.ARITHMETIC, 1e-4))
    disturbed = run((Part.CALLS, 0.02), (Part.ARITHMETIC, 1e-4))
    assert typical_seconds([calm, disturbed, calm], 0.5).in_parts({0})[Part.CALLS] == 1e-5


def test_a_long_piece_has_the_processor_as_often_as_the_whole() -> None:
    runs = [run((Part.ARITHMETIC, seconds)) for seconds in (0.03, 0.05)]
    found = typical_seconds(runs, 0.5).in_parts({0})[Part.ARITHMETIC]
    assert found == pytest.approx(0.02)


def test_a_run_of_other_operations_is_left_out() -> None:
    usual = run((Part.CALLS, 1e-5))
    other = run((Part.CALLS, 3e-5), (Part.ROWS, 1e-5))
    found = typical_seconds([other, usual, usual], 1.0)
    assert found.labels == usual.labels
    np.testing.assert_array_equal(found.seconds, [1e-5])


def test_only_the_steps_that_are_asked_for_count() -> None:
    pieces = [Piece(0, Part.ROWS, "a", 1.0), Piece(1, Part.ROWS, "b", 2.0)]
    pieces.append(Piece(1, Part.HOST, "c", 4.0))
    found = Profiled.of(pieces)
    assert found.in_parts({1})[Part.ROWS] == 2.0
    assert found.num_in_forward({1}) == 1
