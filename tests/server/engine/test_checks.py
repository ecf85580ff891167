"""What the engine refuses, for a forward would fail at it."""

import math
from dataclasses import replace
from typing import Any

import pytest
from fake_decoder import CONFIG, IMAGE_ID, VOCAB, make_image, make_request

from skipserve.engine.checks import check_request
from skipserve.errors import InvalidRequestError
from skipserve_policies.plan import Plan, TokenClass

pytestmark = pytest.mark.fast

GOOD = make_request(num_text=2, num_images=1)  # 2 + 4 + 2 tokens
TEXT, VISUAL, LAST = TokenClass.TEXT, TokenClass.VISUAL, TokenClass.LAST
CLASSES = GOOD.token_classes
IDS = GOOD.prompt_ids


def test_a_good_request_passes() -> None:
    check_request(GOOD, CONFIG, 64)
    check_request(make_request(num_text=10, max_tokens=64 - 12), CONFIG, 64)


def test_an_image_may_end_the_prompt() -> None:
    ids = (5, 6, 7, 8, *(IMAGE_ID,) * 4)
    classes = (*(TEXT,) * 4, *(VISUAL,) * 3, LAST)
    check_request(replace(GOOD, prompt_ids=ids, token_classes=classes), CONFIG, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_ids": (), "token_classes": ()}, "prompt is empty"),
        ({"plan": Plan.full(5)}, "plan is for 5 layers, the model has 4"),
        ({"token_classes": CLASSES[:-1]}, "needs a class"),
        ({"token_classes": (*CLASSES[:-1], TEXT)}, "needs a class"),
        ({"token_classes": (LAST, *CLASSES[1:])}, "needs a class"),
        ({"token_classes": (TokenClass.GENERATED, *CLASSES[1:])}, "needs a class"),
        ({"token_classes": (VISUAL, *CLASSES[1:])}, "token 10 is of class VISUAL"),
        ({"token_classes": (*CLASSES[:2], TEXT, *CLASSES[3:])}, "token 3 is of class TEXT"),
        ({"prompt_ids": (VOCAB, *IDS[1:])}, "token 64 is not in the vocabulary of 64"),
        ({"prompt_ids": (-1, *IDS[1:])}, "token -1 is not in the vocabulary"),
        ({"images": ()}, "0 images need 0 image tokens, the prompt has 4"),
        ({"images": GOOD.images * 2}, "2 images need 8 image tokens, the prompt has 4"),
        ({"images": (replace(make_image(1), pixels=b"123"),)}, "4 x 4 x 3 values"),
    ],
)
def test_a_bad_request_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        check_request(replace(GOOD, **change), CONFIG, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 57}, "8 tokens, with 57 to generate that is over the context of 64"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 2**63}, "top_k is 9223372036854775808"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"min_p": math.nan}, "min_p is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"num_top_logprobs": -1}, "top_logprobs is -1"),
    ],
)
def test_bad_sampling_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        check_request(replace(GOOD, sampling=replace(GOOD.sampling, **change)), CONFIG, 64)


def test_what_there_is_no_memory_for_is_refused() -> None:
    check_request(GOOD, CONFIG, 12)
    with pytest.raises(InvalidRequestError, match="over the 11 that the engine has memory for"):
        check_request(GOOD, CONFIG, 11)
