"""Tests of what the keywords of a call become."""

from typing import Any

import pytest

from skipserve.engine.types import SamplingParams
from skipserve.errors import InvalidRequestError
from skipserve.offline.sampling import Sampling, sampling_params, stop_strings

pytestmark = pytest.mark.fast


def params(index: int = 0, num_left: int = 1000, **sampling: Any) -> SamplingParams:
    given: Any = sampling
    return sampling_params(given, index, num_left)


def test_without_keywords_it_is_greedy() -> None:
    assert params() == SamplingParams(max_tokens=128, temperature=0.0)


def test_every_keyword_arrives() -> None:
    given: dict[str, Any] = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 3,
    }
    assert params(**given) == SamplingParams(**given)
    every = Sampling.__annotations__.keys() - given.keys()
    assert every == {"stop", "stop_token_ids", "logprobs", "top_logprobs"}


def test_the_default_length_fits_the_context() -> None:
    assert params(num_left=20).max_tokens == 20
    assert params(num_left=-1).max_tokens == 1
    # What was asked for is not cut short in silence: the engine refuses it.
    assert params(num_left=20, max_tokens=30).max_tokens == 30


def test_each_question_has_a_seed_of_its_own() -> None:
    assert [params(index, seed=5).seed for index in range(3)] == [5, 6, 7]
    assert params(index=1, seed=2**63 - 1).seed == -(2**63)


def test_log_probabilities() -> None:
    assert params().num_top_logprobs is None
    assert params(logprobs=False).num_top_logprobs is None
    assert params(logprobs=True).num_top_logprobs == 0
    assert params(logprobs=True, top_logprobs=4).num_top_logprobs == 4
    with pytest.raises(InvalidRequestError, match="needs logprobs=True"):
        params(top_logprobs=4)


def test_a_misspelt_keyword() -> None:
    with pytest.raises(TypeError, match="max_token'"):
        params(max_token=4)


def test_stop_strings() -> None:
    assert stop_strings({}) == ()
    assert stop_strings({"stop": "."}) == (".",)
    assert stop_strings({"stop": [".", "no"]}) == (".", "no")


@pytest.mark.parametrize("stop", ["", [""], [".", ""], [7]])
def test_what_is_no_stop_string(stop: Any) -> None:
    with pytest.raises(InvalidRequestError, match="stop is "):
        stop_strings({"stop": stop})
