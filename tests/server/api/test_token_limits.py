"""Tests of what a request gets of the engine's cache."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import question

from skipserve.api.token_limits import cache_salt, fit_cache
from skipserve.api.wire import ChatForm
from skipserve.engine.request import SamplingParams
from skipserve.errors import InvalidRequestError

pytestmark = pytest.mark.fast

ONE, OTHER = b"1" * 32, b"2" * 32


def test_without_keys_the_client_s_salt_is_the_salt() -> None:
    assert cache_salt(None, None) == ""
    assert cache_salt("team-7", None) == "team-7"


def test_each_key_has_salts_of_its_own() -> None:
    salts = [cache_salt(own, key) for own in (None, "a", "b") for key in (None, ONE, OTHER)]
    assert len(set(salts)) == 9
    assert cache_salt("a", ONE) == cache_salt("a", ONE)


def test_a_salt_shows_no_key() -> None:
    assert ONE.hex() not in cache_salt("a", ONE)
    assert ONE.decode() not in cache_salt("a", ONE)


@given(*[st.binary(min_size=1, max_size=40)] * 2, *[st.text(max_size=8)] * 2)
def test_parts_do_not_run_into_each_other(
    key: bytes, other_key: bytes, own: str, other: str
) -> None:
    is_same = (key, own) == (other_key, other)
    assert (cache_salt(own, key) == cache_salt(other, other_key)) == is_same


def fitted(limit: int, num_prompt: int, num_cache_tokens: int, **fields: int) -> int:
    form = ChatForm.model_validate(question("Hi") | {"max_tokens": None} | fields)
    sampling = SamplingParams(limit)
    return fit_cache(form, sampling, num_prompt, num_cache_tokens).max_tokens


def test_an_answer_that_fits_stays_as_long_as_it_is() -> None:
    assert fitted(20, 80, 100, max_tokens=20) == 20
    assert fitted(20, 80, 100) == 20


def test_an_answer_of_no_asked_length_fills_what_is_left() -> None:
    assert fitted(4000, 80, 100) == 20
    assert fitted(4000, 99, 100) == 1


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_that_could_never_be_whole_is_refused(field: str) -> None:
    with pytest.raises(InvalidRequestError, match="leaves 20 of the 100") as caught:
        fitted(21, 80, 100, **{field: 21})
    assert caught.value.param == field


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 1}])
def test_a_prompt_that_leaves_no_room_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError, match="room for 100") as caught:
        fitted(1, 100, 100, **fields)
    assert caught.value.param == "messages"
