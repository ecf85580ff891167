"""Tests of the one form of all errors."""

import json

import pytest
from starlette.exceptions import HTTPException

from skipserve import errors
from skipserve.api.errors import error_response, to_skipserve_error
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
