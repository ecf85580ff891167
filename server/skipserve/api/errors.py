"""Every error as the one reply form: what a client is told, and nothing of the server's inside."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from skipserve.api.exchange import exchange_of
from skipserve.api.forms.errors import is_of_messages, message_error
from skipserve.api.wire import BodyForm, ErrorBody, ErrorReply
from skipserve.asking.fields import FieldTable, Handling
from skipserve.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    SkipserveError,
)
from skipserve_policies.faults import Fault, plain_faults

# What a client may be told of.
ERROR_STATUSES = frozenset(
    {SkipserveError.status, *(kind.status for kind in SkipserveError.__subclasses__())}
)
# Of every reply: it is what it says it is, and nobody on the way keeps it unless it says so.
SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_MAX_FAULTS = 10
# What is told of the others is how many they are.
_MAX_READ = 128
# What is less alike is no slip of the pen.
_ALIKE = 0.75
_MAX_FAULT_LENGTH = 300


def to_skipserve_error(error: Exception, form: type[BodyForm] | None = None) -> SkipserveError:
    """Return the error of our tree that an exception of any kind is told as.

    Args:
        error: the exception.
        form: what was to be read where it is about a body; its fields are named.
    """
    if isinstance(error, SkipserveError):
        return error
    if isinstance(error, RequestValidationError):
        return _from_faults(error.errors(), error.body, form)
    if isinstance(error, HTTPException):
        return _from_http(error)
    return SkipserveError(
        "the server failed to answer; the request id finds it in the server's log"
    )


def error_body(error: SkipserveError) -> str:
    """Return the JSON text of an error."""
    body = ErrorBody(
        message=error.told,
        type=error.type,
        param=error.param,
        code=error.status,
    )
    return ErrorReply(error=body).model_dump_json()


def error_response(error: Exception, path: str = "", request_id: str | None = None) -> Response:
    """Return the reply to a request that failed, in the form of what it asked for.

    Args:
        error: why.
        path: what was asked for.
        request_id: the request's, where its form tells it in the body.
    """
    told = to_skipserve_error(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if "GET" in (allowed := headers.get("Allow", "").split(", ")):
        headers["Allow"] = ", ".join(sorted({*allowed, "HEAD"}))
    if told.retry_after_seconds is not None:
        headers["Retry-After"] = str(told.retry_after_seconds)
    if told.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if is_of_messages(path):
        body = message_error(told, request_id).model_dump_json()
    else:
        body = error_body(told)
    return Response(body, told.status, headers, media_type="application/json")


def let_go(error: BaseException | None) -> None:
    """Take from an error, and those behind it, the calls that it has ended: they hold a body.

    Error and calls refer to each other, so all of it would stay until Python looks for such
    circles: that depends on how many objects there are, not on their size.
    """
    while error is not None and error.__traceback__ is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def error_replies(
    *statuses: int, model: type[BaseModel] = ErrorReply
) -> dict[int | str, dict[str, Any]]:
    """Return what the schema says of a route's errors."""
    return {status: {"model": model} for status in statuses}


async def handle_error(request: Request, error: Exception) -> Response:
    """Answer for FastAPI's own errors: no such route, wrong method, a form that does not fit."""
    told: Exception = error
    let_go(error)
    if isinstance(error, HTTPException) and error.status_code == NotFoundError.status:
        told = _no_route(request)
    elif isinstance(error, HTTPException) and error.status_code == MethodNotAllowedError.status:
        told = HTTPException(error.status_code, headers=_allowed(request) or error.headers)
    elif isinstance(error, RequestValidationError):
        told = to_skipserve_error(error, form_of(request.scope.get("route")))
    exchange = exchange_of(request.scope)
    exchange.fail(to_skipserve_error(told))
    return error_response(told, exchange.path, exchange.request_id)


def form_of(route: object) -> type[BodyForm] | None:
    """Return what a route reads a body as; None where it takes none."""
    field = route.body_field if isinstance(route, APIRoute) else None
    form = None if field is None else field.field_info.annotation
    return form if isinstance(form, type) and issubclass(form, BodyForm) else None


def _no_route(request: Request) -> NotFoundError:
    """Return the error of a request for no route, with the one that may be meant."""
    routes = _methods(request)
    near = get_close_matches(request.url.path[:_MAX_FAULT_LENGTH], routes, n=1, cutoff=_ALIKE)
    return NotFoundError("there is no such route" + (f"; is it {near[0]}?" if near else ""))


def _allowed(request: Request) -> dict[str, str]:
    """Return the header with the methods of all routes of a path: each tells its own alone."""
    path = getattr(request.scope.get("route"), "path", "")
    methods = _methods(request).get(path)
    return {"Allow": ", ".join(sorted(methods))} if methods else {}


def _methods(request: Request) -> dict[str, set[str]]:
    """Return the methods of the paths that there are; to ask the schema would cost its making."""
    methods: dict[str, set[str]] = {}
    for route in request.app.state.routes:
        methods.setdefault(route.path, set()).update(route.methods or ())
    return methods


def _from_http(error: HTTPException) -> SkipserveError:
    # FastAPI takes all that fails while a body is read for its own.
    if isinstance(error.__cause__, SkipserveError):
        return error.__cause__
    if error.status_code == 404:
        return NotFoundError("there is no such route")
    if error.status_code == 405:
        return MethodNotAllowedError("the route does not take this method")
    return InvalidRequestError("the body cannot be read as UTF-8 JSON")


def _from_faults(
    found: Sequence[Any], body: object, form: type[BodyForm] | None
) -> InvalidRequestError:
    """Describe the first faults of a form, without what the client sent."""
    first = found[0]
    if first["type"] == "json_invalid":
        reason, place = first["ctx"]["error"], first["loc"][-1]
        return InvalidRequestError(f"the body is not JSON: {reason} at character {place}")
    if not isinstance(body, dict):
        return InvalidRequestError("the body must be a JSON object")
    inside = [fault | {"loc": fault["loc"][1:]} for fault in found[:_MAX_READ]]
    faults = plain_faults(inside, form or BaseModel, body)
    table = None if form is None else form.field_table
    told = list(dict.fromkeys(_describe(fault, table) for fault in faults))
    if len(told) > _MAX_FAULTS:
        num_left = len(told) - _MAX_FAULTS + len(found) - len(inside)
        told[_MAX_FAULTS:] = [f"and {num_left} more"]
    return InvalidRequestError("; ".join(told), _param(faults[0].place))


def _describe(fault: Fault, table: FieldTable | None) -> str:
    if not fault.place:
        return f"the body: {fault.message}"
    place = json.dumps(".".join(str(part)[:_MAX_FAULT_LENGTH] for part in fault.place))[1:-1]
    row = None if table is None else table.find(fault.place)
    is_refused = row is not None and row.handling is Handling.REFUSED
    message = row.says if row is not None and is_refused else fault.message
    return f"{place[:_MAX_FAULT_LENGTH]}: {message}"[: 2 * _MAX_FAULT_LENGTH]


def _param(place: Sequence[int | str]) -> str | None:
    """Return the request's field at fault: `stop`, or with an index `messages[3]`."""
    if not place or not isinstance(place[0], str):
        return None
    index = f"[{place[1]}]" if len(place) > 1 and isinstance(place[1], int) else ""
    return place[0][:_MAX_FAULT_LENGTH].encode(errors="replace").decode() + index
