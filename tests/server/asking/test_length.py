"""Tests of how long an answer may be."""

import pytest

from skipserve.asking.length import answer_length
from skipserve.asking.question import Generation
from skipserve.errors import InvalidRequestError

pytestmark = pytest.mark.fast

CONTEXT = 4096


def length(num_prompt: int, num_cache_tokens: int | None = None, **fields: int | str | None) -> int:
    wanted = Generation(**fields)  # type: ignore[arg-type]
    return answer_length(wanted, num_prompt, CONTEXT, num_cache_tokens)


def test_an_answer_that_fits_stays_as_long_as_it_is() -> None:
    assert length(80, 100, max_tokens=20) == 20
    assert length(80, max_tokens=CONTEXT - 80) == CONTEXT - 80


def test_an_answer_of_no_asked_length_fills_what_is_left() -> None:
    assert length(80) == CONTEXT - 80
    assert length(80, 10 * CONTEXT) == CONTEXT - 80
    assert length(80, 100) == 20
    assert length(99, 100) == 1


def test_what_an_open_length_becomes() -> None:
    assert length(80, open_tokens=128) == 128
    assert length(80, 100, open_tokens=128) == 20
    assert length(CONTEXT - 5, open_tokens=128) == 5


def test_an_answer_that_would_not_fit_is_clipped() -> None:
    assert length(80, 100, max_tokens=21) == 20
    assert length(CONTEXT - 20, max_tokens=21) == 20
    assert length(CONTEXT - 1, max_tokens=10**9) == 1


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 1}])
def test_a_prompt_that_leaves_no_room_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError, match="room for 100") as caught:
        length(100, 100, **fields)
    assert caught.value.param == "messages"


def test_no_tokens_are_left_to_the_engine_to_refuse() -> None:
    assert length(80, 100, max_tokens=0) == 0
