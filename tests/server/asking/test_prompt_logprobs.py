"""What is told of a prompt's tokens, as vLLM's form has it."""

from dataclasses import replace

import numpy as np
import pytest
from fake_decoder import IMAGE_ID, TOKENS_PER_IMAGE, make_request
from tiny_llava import make_tokenizer

from skipserve.asking.prompt_logprobs import PromptLogprobs, RankedLogprob
from skipserve.engine.reports import PromptScores
from skipserve.prompt.tokenizer import Tokenizer
from skipserve_policies.plan import TokenClass

pytestmark = pytest.mark.fast

OURS = Tokenizer(make_tokenizer().to_str())


def told(num_top: int = 2) -> PromptLogprobs:
    """Return the prompt 10 11 IMAGE 60 61, the second of whose tokens are the most probable."""
    request = replace(make_request(num_text=2, num_images=1), num_prompt_logprobs=num_top)
    assert request.prompt_ids == (10, 11, *(IMAGE_ID,) * TOKENS_PER_IMAGE, 60, 61)
    top_ids, top = [[11, 5], [5, 6], [5, 61]], [[-0.5, -1], [-0.25, -2], [-0.125, -0.75]]
    scores = PromptScores(
        num_top,
        np.array([-0.5, -4, -0.75], "<f4").tobytes(),
        np.array([1, 9, 2], "<i4").tobytes(),
        np.array(top_ids, "<i4")[:, :num_top].tobytes(),
        np.array(top, "<f4")[:, :num_top].tobytes(),
    )
    return PromptLogprobs(request, scores, OURS)


def test_each_token_comes_first_and_once() -> None:
    def ranked(token_id: int, logprob: float, rank: int) -> tuple[int, RankedLogprob]:
        return token_id, RankedLogprob(logprob, rank, OURS.token_text(token_id))

    entries = told().entries(2)
    assert entries[:2] == (None, dict([ranked(11, -0.5, 1), ranked(5, -1.0, 2)]))
    assert entries[2:-2] == (None,) * TOKENS_PER_IMAGE
    before, last = entries[-2:]
    assert before is not None
    assert last is not None
    assert list(before.items()) == [ranked(60, -4.0, 9), ranked(5, -0.25, 1), ranked(6, -2.0, 2)]
    assert list(last.items()) == [ranked(61, -0.75, 2), ranked(5, -0.125, 1)]


@pytest.mark.parametrize("num_top", [0, 1])
def test_fewer_alternatives_may_be_told(num_top: int) -> None:
    for prompt in (told(), told(num_top)):
        sizes = [len(entry) for entry in prompt.entries(num_top) if entry is not None]
        assert sizes == [1, 1 + num_top, 1 + num_top]


def test_tokens_have_their_places() -> None:
    tokens = list(told().tokens(1))
    assert [token.token_id for token in tokens] == list(told().request.prompt_ids)
    assert [token.logprob for token in tokens if token.logprob is not None] == [-0.5, -4, -0.75]
    assert tokens[-1].top == ((5, -0.125),)
    assert tokens[0].top == ()


def test_a_prompt_of_one_token_has_nothing_to_tell() -> None:
    request = replace(
        make_request(), prompt_ids=(7,), token_classes=(TokenClass.LAST,), num_prompt_logprobs=1
    )
    nothing = PromptLogprobs(request, PromptScores(0, b"", b"", b"", b""), OURS)
    assert nothing.entries(1) == (None,)
