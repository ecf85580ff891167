"""A request under way, and what follows from the few facts that it stores."""

import pytest
from fake_decoder import EOS_ID, make_request

from skipserve.engine.sequence import Sequence
from skipserve.engine.types import FinishReason, Stage
from skipserve_policies.plan import TokenClass

pytestmark = pytest.mark.fast


def test_all_of_the_prompt_is_pending_at_first() -> None:
    request = make_request(num_text=2, num_images=1)
    sequence = Sequence(request)
    assert sequence.is_prefill
    assert sequence.pending_ids == request.prompt_ids
    assert sequence.pending_classes == request.token_classes
    assert sequence.finish_reason is None


def test_a_part_of_the_prompt_can_be_done() -> None:
    request = make_request(num_text=4)
    sequence = Sequence(request, num_computed=3)
    assert sequence.is_prefill
    assert sequence.pending_ids == request.prompt_ids[3:]
    assert sequence.pending_classes == request.token_classes[3:]


def test_an_answer_token_is_pending_until_it_is_computed() -> None:
    request = make_request(num_text=4)
    sequence = Sequence(request, num_computed=6, generated_ids=[11])
    assert not sequence.is_prefill
    assert sequence.pending_ids == (11,)
    assert sequence.pending_classes == (TokenClass.GENERATED,)
    sequence.num_computed = 7
    sequence.generated_ids.append(12)
    assert sequence.pending_ids == (12,)


def test_prompt_and_answer_can_be_pending_together() -> None:
    request = make_request(num_text=1)
    sequence = Sequence(request, num_computed=2, generated_ids=[11, 12])
    assert sequence.pending_ids == (61, 11, 12)
    assert sequence.pending_classes == (TokenClass.LAST, *(TokenClass.GENERATED,) * 2)


@pytest.mark.parametrize(
    ("generated", "ends_at_eos", "reason"),
    [
        ([], True, None),
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
    request = make_request(max_tokens=3, ends_at_eos=ends_at_eos)
    sequence = Sequence(request, frozenset({EOS_ID}), generated_ids=generated)
    assert sequence.finish_reason is reason


def test_marks_share_out_the_time_between_them() -> None:
    sequence = Sequence(make_request())
    start = sequence._marked_at
    sequence.mark(Stage.QUEUE)
    sequence.mark(Stage.PREFILL)
    sequence.mark(Stage.PREFILL)
    assert set(sequence.stage_seconds) == {Stage.QUEUE, Stage.PREFILL}
    assert sum(sequence.stage_seconds.values()) == pytest.approx(sequence._marked_at - start)
