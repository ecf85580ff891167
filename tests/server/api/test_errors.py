"""Tests of the one form of all errors."""

import json
from typing import Any

import pytest
from bad_forms import check_words, spoilt
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from skipserve import errors
from skipserve.api.errors import error_response, to_skipserve_error
from skipserve.api.wire import ChatForm
from skipserve.errors import SkipserveError, UnavailableError

pytestmark = pytest.mark.fast

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SkipserveError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_the_tree(kind: type[SkipserveError]) -> None:
    error = kind("what is wrong")
    error.param = "field"
    response = error_response(error)
    assert response.status_code == kind.status
    assert response.media_type == "application/json"
    assert json.loads(bytes(response.body)) == {
        "error": {
            "message": "what is wrong",
            "type": kind.type,
            "param": "field",
            "code": kind.status,
        }
    }


def test_come_back_later() -> None:
    response = error_response(UnavailableError("full", retry_after_seconds=7))
    assert response.headers["Retry-After"] == "7"


@pytest.mark.parametrize("status", [404, 405, 400])
def test_the_frameworks_errors(status: int) -> None:
    response = error_response(HTTPException(status, "<its own words>", {"Allow": "GET"}))
    assert response.status_code == status
    assert b"its own words" not in response.body
    assert response.headers["Allow"] == "GET, HEAD"


def test_s13_unforeseen_errors_tell_nothing() -> None:
    told = to_skipserve_error(ValueError("<object at 0x7fc0ffee1234>"))
    assert (told.status, "0x" in told.message) == (500, False)


def test_messages_have_a_bound() -> None:
    assert len(error_response(SkipserveError("x" * 10**6)).body) < 8_000


USER = {"role": "user", "content": "Hi"}


def told_of(body: Any) -> str:
    """Return the message about a body, as FastAPI has it told."""
    with pytest.raises(ValidationError) as caught:
        ChatForm.model_validate(body)
    faults = [fault | {"loc": ("body", *fault["loc"])} for fault in caught.value.errors()]
    return to_skipserve_error(RequestValidationError(faults, body=body), ChatForm).message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "the body must be a JSON object"),
        ([], "the body must be a JSON object"),
        ({}, "messages: this field is missing"),
        ({"messages": []}, "messages: the list is empty"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content: the list is empty"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: this field is missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "", "x": 1}]}]},
            "messages.0.content.0.x: this field is not known",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0.image_url.url: this field is missing",
        ),
        ({"messages": [USER], "stop": 5}, "stop: this must be a text"),
        ({"messages": [USER], "stop": ["a", 5]}, "stop.1: this must be a text"),
        (
            {"messages": [USER], "skip_policy": {"rules": [{"action": "skip_block"}]}},
            "skip_policy.rules.0.layers: this field is missing",
        ),
        (
            {
                "messages": [USER],
                "skip_policy": {
                    "rules": [{"action": "skip_block", "layers": {"from": 9, "to": 8}}]
                },
            },
            "skip_policy.rules.0.layers: the range from 9 to 8 holds no layer",
        ),
        (
            {"messages": [USER], "skip_policy": 5},
            'skip_policy: a skip policy is a name, or is spelt out as {"rules": [...]}, or is '
            'chosen by the server: "auto", {"auto": {"min_quality": 0.97}}',
        ),
        (
            {"messages": [USER], "max_token": 3},
            "max_token: this field is not known; is it max_tokens?",
        ),
        (
            {"messages": [USER], "chat_template": "{{ messages }}"},
            "chat_template: a request cannot bring its own chat template",
        ),
        (
            {"messages": [USER], "cache_salt": "a b"},
            "cache_salt: this may hold printable ASCII characters, and no spaces",
        ),
        (
            {"messages": [USER], "logit_bias": {"yes": 1}},
            "logit_bias.yes: the names must be token ids, such as 13",
        ),
    ],
)
def test_a_fault_is_told_once_with_its_place(body: Any, message: str) -> None:
    assert told_of(body) == message


FORM: dict[str, Any] = {
    "messages": [
        USER,
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": {"url": "data:"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Hi",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "content": "Hi", "tool_call_id": "1"},
    ],
    "model": "m",
    "skip_policy": {"rules": [{"action": "skip_block", "layers": [1]}]},
    "vllm_xargs": {"skip_policy": "full"},
    "cache_salt": "s",
    "timeout_seconds": 3,
    "max_completion_tokens": 3,
    "max_tokens": 3,
    "temperature": 0,
    "top_p": 1,
    "seed": 1,
    "stop": ["a"],
    "logprobs": True,
    "top_logprobs": 1,
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "n": 1,
    "top_k": 1,
    "min_p": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {"1": 1},
    "bad_words": ["a"],
    "min_tokens": 1,
    "ignore_eos": True,
    "priority": 1,
    "add_generation_prompt": False,
    "continue_final_message": True,
    "return_token_ids": True,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "structured_outputs": {
        "json": {},
        "json_object": True,
        "regex": "a",
        "choice": ["a"],
        "grammar": "start:",
    },
    "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": True,
}


def test_no_word_of_pydantics_is_told_of_a_body() -> None:
    assert ChatForm.model_validate(FORM)
    kinds: set[str] = set()
    every_field = dict.fromkeys(ChatForm.model_fields, 1) | FORM
    bodies: list[object] = [None, [], "Hi", {1: 2}, *spoilt(every_field)]
    for body in bodies:
        try:
            ChatForm.model_validate(body)
        except ValidationError as error:
            kinds |= check_words(error, ChatForm, body)
            assert told_of(body)
    assert len(kinds) > 20


@pytest.mark.parametrize("content", ["part", {"type": "audio"}, {"type": []}, {"text": "Hi"}, None])
def test_what_is_no_part(content: Any) -> None:
    message = told_of({"messages": [{"role": "user", "content": [content]}]})
    assert message.startswith("messages.0.content.0: a part is ")


@pytest.mark.parametrize("name", ["stream", "logprobs"])
@pytest.mark.parametrize("value", ["true", 1, "yes"])
def test_a_flag_is_true_or_false(name: str, value: Any) -> None:
    assert told_of({"messages": [USER], name: value}).startswith(f"{name}: ")
