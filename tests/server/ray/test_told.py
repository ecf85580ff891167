"""What is told of an answer that two engines have run."""

import pytest

from skipserve.engine.reports import FinishReason, StepOutput
from skipserve.ray.told import DivergedError, Told

pytestmark = pytest.mark.fast


def _output(token_id: int | None, finish_reason: FinishReason | None = None) -> StepOutput:
    return StepOutput("r", token_id, finish_reason=finish_reason)


def _told(told: Told, *tokens: int | None) -> list[int | None]:
    outputs = (told.take(_output(token)) for token in tokens)
    return [output.token_id for output in outputs if output is not None]


def test_all_of_one_engine_is_told() -> None:
    told = Told()
    assert _told(told, 5, 6, 5) == [5, 6, 5]
    assert not told.is_again


def test_what_comes_again_is_held_back() -> None:
    told = Told()
    assert _told(told, 5, 6) == [5, 6]
    told.begin_again()
    assert _told(told, 5, 6, 7) == [7]
    assert told.is_again


def test_a_second_engine_may_be_lost_earlier_than_the_first() -> None:
    told = Told()
    assert _told(told, 5, 6, 7) == [5, 6, 7]
    told.begin_again()
    assert _told(told, 5) == []
    told.begin_again()
    assert _told(told, 5, 6, 7, 8) == [8]


def test_other_tokens_are_an_error() -> None:
    told = Told()
    assert _told(told, 5, 6) == [5, 6]
    told.begin_again()
    assert _told(told, 5) == []
    with pytest.raises(DivergedError):
        _told(told, 7)


def test_the_end_is_told_though_its_token_was() -> None:
    told = Told()
    assert _told(told, 5, 6) == [5, 6]
    told.begin_again()
    assert told.take(_output(5)) is None
    end = told.take(_output(6, FinishReason.STOP))
    assert end == _output(None, FinishReason.STOP)


def test_an_end_without_a_token_is_told() -> None:
    told = Told()
    told.begin_again()
    assert told.take(_output(None, FinishReason.CANCELLED)) == _output(None, FinishReason.CANCELLED)
