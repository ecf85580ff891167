"""Tests of what the keywords of a call become."""

from typing import Any

import numpy as np
import pytest

from skipserve.asking.length import answer_length
from skipserve.asking.question import Generation
from skipserve.errors import InvalidRequestError
from skipserve.offline.sampling import Sampling, checked_sampling, generation_of

pytestmark = pytest.mark.fast


def generation(index: int = 0, **sampling: Any) -> Generation:
    given: Any = sampling
    return generation_of(given, index)


def max_tokens(num_left: int, **sampling: Any) -> int:
    """Return how long an answer may be where a context of 1000 has so many tokens left."""
    return answer_length(generation(**sampling), 1000 - num_left, 1000)


def test_without_keywords_it_is_greedy() -> None:
    assert (generation().temperature, generation().seed, generation().max_tokens) == (0, 0, None)
    assert max_tokens(num_left=1000) == 128


def test_every_keyword_arrives() -> None:
    given: dict[str, Any] = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 3,
        "min_tokens": 2,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.5,
    }
    found = generation(**given)
    assert {name: getattr(found, name) for name in given} == given
    every = Sampling.__annotations__.keys() - given.keys()
    others = {"stop", "stop_token_ids", "ignore_eos", "logit_bias", "bad_words"}
    assert every == others | {"logprobs", "top_logprobs", "prompt_logprobs"}
    assert generation(ignore_eos=True).ignores_eos
    assert generation(prompt_logprobs=2).num_prompt_logprobs == 2


def test_biases_and_words() -> None:
    found = generation(logit_bias={np.int64(5): 1, 6: np.float32(-0.5)}, bad_words=["a", " b"])
    assert found.logit_bias == ((5, 1.0), (6, -0.5))
    assert found.bad_words == ("a", " b")
    assert generation(bad_words="no").bad_words == ("no",)


@pytest.mark.parametrize("biases", [{"5": 1.0}, {5: "1"}, {True: 1.0}, {5: None}, {5.0: 1.0}])
def test_what_is_no_bias(biases: Any) -> None:
    with pytest.raises(InvalidRequestError, match="it must have token ids and numbers"):
        generation(logit_bias=biases)


@pytest.mark.parametrize("words", [[""], [7], ["a", None]])
def test_what_is_no_word(words: Any) -> None:
    with pytest.raises(InvalidRequestError, match="bad_words is "):
        generation(bad_words=words)


def test_the_default_length_fits_the_context() -> None:
    assert max_tokens(num_left=20) == 20
    assert max_tokens(num_left=20, max_tokens=30) == 20
    # What asks for none is left to the engine to refuse.
    assert max_tokens(num_left=20, max_tokens=0) == 0


def test_each_question_has_a_seed_of_its_own() -> None:
    assert [generation(index, seed=5).seed for index in range(3)] == [5, 6, 7]
    assert generation(index=1, seed=2**63 - 1).seed == -(2**63)


def test_log_probabilities() -> None:
    assert generation().num_top_logprobs is None
    assert generation(logprobs=False).num_top_logprobs is None
    assert generation(logprobs=True).num_top_logprobs == 0
    assert generation(logprobs=True, top_logprobs=4).num_top_logprobs == 4
    with pytest.raises(InvalidRequestError, match="needs logprobs=True"):
        generation(top_logprobs=4)


def test_a_misspelt_keyword() -> None:
    with pytest.raises(TypeError) as caught:
        checked_sampling({"max_token": 4})
    assert str(caught.value) == (
        "generate() got an unexpected keyword argument 'max_token'; is it 'max_tokens'?"
    )


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("max_tokens", "5", "a whole number"),
        ("max_tokens", None, "a whole number"),
        ("max_tokens", True, "a whole number"),
        ("seed", 1.5, "a whole number"),
        ("top_k", [1], "a whole number"),
        ("temperature", "hot", "a number"),
        ("top_p", False, "a number"),
        ("logprobs", 1, "True or False"),
        ("stop", 5, "a text or a list"),
        ("stop", None, "a text or a list"),
        ("stop", b".", "a text or a list"),
        ("logit_bias", [5], "a mapping"),
        ("bad_words", 5, "a text or a list"),
        ("ignore_eos", 1, "True or False"),
    ],
)
def test_a_value_of_another_kind(name: str, value: Any, right: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        checked_sampling({name: value})
    assert caught.value.message == f"{name} is {value!r}; it must be {right}, or be left out"
    assert caught.value.param == name


def test_numbers_may_be_numpys() -> None:
    given = {"max_tokens": np.int64(2), "seed": np.uint64(2**63), "temperature": np.float32(0.5)}
    checked = checked_sampling(given | {"top_p": 1})
    assert checked == {"max_tokens": 2, "seed": 2**63, "temperature": 0.5, "top_p": 1.0}
    assert {type(value) for value in checked.values()} == {int, float}


def test_stop_strings() -> None:
    assert generation().stops == ()
    assert generation(stop=".").stops == (".",)
    assert generation(stop=[".", "no"]).stops == (".", "no")


@pytest.mark.parametrize("stop", ["", [""], [".", ""], [7]])
def test_what_is_no_stop_string(stop: Any) -> None:
    with pytest.raises(InvalidRequestError, match="stop is "):
        generation(stop=stop)


def test_tokens_that_end_an_answer() -> None:
    found = generation(stop_token_ids=[np.int64(2), 3]).stop_token_ids
    assert found == (2, 3)
    assert {type(token_id) for token_id in found} == {int}


@pytest.mark.parametrize("token_ids", ["ab", [True], [2.0], [None]])
def test_what_is_no_token(token_ids: Any) -> None:
    with pytest.raises(InvalidRequestError, match="it must hold token ids"):
        generation(stop_token_ids=token_ids)
