"""A request under way, and what follows from the few facts that it stores."""

import pytest
from engine_parts import make_sequence
from fake_decoder import EOS_ID, make_request

from skipserve.engine.reports import FinishReason, Stage

pytestmark = pytest.mark.fast


def test_all_of_the_prompt_is_pending_at_first() -> None:
    sequence = make_sequence(make_request(num_text=2, num_images=1))
    assert sequence.next_stop == sequence.num_prompt == 8
    assert sequence.visual_positions.tolist() == [2, 3, 4, 5]
    assert sequence.visual_stop == 6


def test_a_part_of_the_prompt_can_be_done() -> None:
    sequence = make_sequence(make_request(num_text=4))
    sequence.num_computed = 3
    assert sequence.next_stop == 6
    assert sequence.visual_stop == 0


def test_a_token_is_pending_before_it_is_read() -> None:
    sequence = make_sequence(make_request(num_text=4))
    sequence.num_computed, sequence.num_tokens = 6, 7
    assert (sequence.next_stop, sequence.num_unread) == (7, 1)
    sequence.generated_ids.append(9)
    assert (sequence.next_stop, sequence.num_unread) == (7, 0)
    assert sequence.known_ids.tolist() == [*sequence.request.prompt_ids, 9]


def test_the_last_token_is_never_fed_back() -> None:
    sequence = make_sequence(make_request(num_text=4, max_tokens=2))
    sequence.num_computed, sequence.num_tokens = 6, 7
    assert sequence.next_stop == 7
    sequence.num_computed, sequence.num_tokens = 7, 8
    assert sequence.next_stop == 7


@pytest.mark.parametrize(
    ("generated", "ends_at_eos", "reason"),
    [
        ([9], True, None),
        ([9, EOS_ID], True, FinishReason.STOP),
        ([9, EOS_ID], False, None),
        ([9, 9, 9], True, FinishReason.LENGTH),
        ([9, 9, EOS_ID], True, FinishReason.STOP),
    ],
)
def test_an_answer_ends_at_the_end_token_or_at_its_length(
    generated: list[int], ends_at_eos: bool, reason: FinishReason | None
) -> None:
    sequence = make_sequence(make_request(max_tokens=3, ends_at_eos=ends_at_eos))
    sequence.generated_ids = generated
    assert sequence.finish_reason(frozenset({EOS_ID})) is reason


def test_an_answer_ends_at_the_tokens_that_were_asked_for() -> None:
    sequence = make_sequence(make_request(ends_at_eos=False, stop_token_ids=(7, 9)))
    for token_id, reason in ((EOS_ID, None), (8, None), (9, FinishReason.STOP)):
        sequence.generated_ids = [token_id]
        assert sequence.finish_reason(frozenset({EOS_ID})) is reason


def test_stages_share_out_the_time_without_a_gap() -> None:
    sequence = make_sequence(make_request())
    sequence.arrived, sequence.started, sequence.vision_seconds = 10.0, 11.0, 2.0
    stages = sequence.take_stages(15.0, is_finished=False)
    assert stages == {Stage.QUEUE: 1.0, Stage.VISION_ENCODE: 2.0, Stage.PREFILL: 2.0}
    assert sequence.take_stages(17.0, is_finished=False) == {}
    assert sequence.take_stages(18.0, is_finished=True) == {Stage.DECODE: 3.0}


def test_an_answer_of_one_token_has_no_decode_stage() -> None:
    sequence = make_sequence(make_request())
    sequence.started = sequence.arrived = 1.0
    assert set(sequence.take_stages(sequence.arrived + 1, is_finished=True)) == {
        Stage.QUEUE,
        Stage.PREFILL,
    }
