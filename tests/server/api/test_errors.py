"""Tests of the one form of all errors."""

import json
from typing import Any

import pytest
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
    assert response.headers["Allow"] == "GET"


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
    return to_skipserve_error(RequestValidationError(faults, body=body)).message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "the body must be a JSON object"),
        ([], "the body must be a JSON object"),
        ({}, "messages: Field required"),
        ({"messages": []}, "messages: the list is empty"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content: the list is empty"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "", "x": 1}]}]},
            "messages.0.content.0.x: this field is not known",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0.image_url.url: Field required",
        ),
        ({"messages": [USER], "stop": 5}, "stop: Input should be a valid string"),
        ({"messages": [USER], "stop": ["a", 5]}, "stop.1: Input should be a valid string"),
        (
            {"messages": [USER], "skip_policy": {"rules": [{"action": "skip_block"}]}},
            "skip_policy.rules.0.layers: Field required",
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
    ],
)
def test_a_fault_is_told_once_with_its_place(body: Any, message: str) -> None:
    assert told_of(body) == message


@pytest.mark.parametrize("content", ["part", {"type": "audio"}, {"type": []}, {"text": "Hi"}, None])
def test_what_is_no_part(content: Any) -> None:
    message = told_of({"messages": [{"role": "user", "content": [content]}]})
    assert message.startswith("messages.0.content.0: a part is ")


@pytest.mark.parametrize("name", ["stream", "logprobs"])
@pytest.mark.parametrize("value", ["true", 1, "yes"])
def test_a_flag_is_true_or_false(name: str, value: Any) -> None:
    assert told_of({"messages": [USER], name: value}).startswith(f"{name}: ")
