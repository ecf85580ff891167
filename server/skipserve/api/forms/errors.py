"""Errors in the forms that are not OpenAI's."""

from typing import Literal

from skipserve.api.paths import MESSAGES
from skipserve.api.replies import Reply
from skipserve.errors import BodyTooLargeError, SkipserveError

# Anthropic's words, where ours are others.
_TYPES = {SkipserveError.type: "api_error"}
_TOO_LARGE = "request_too_large"


class MessageErrorBody(Reply):
    """What went wrong."""

    type: str
    message: str
    param: str | None


class MessageErrorReply(Reply):
    """The one shape of the errors of `/v1/messages`, which is Anthropic's."""

    type: Literal["error"] = "error"
    error: MessageErrorBody
    request_id: str | None = None


def is_of_messages(path: str) -> bool:
    """Whether clients of Anthropic's form ask for a path."""
    return path == MESSAGES or path.startswith(f"{MESSAGES}/")


def message_error(error: SkipserveError, request_id: str | None = None) -> MessageErrorReply:
    """Return an error in Anthropic's form."""
    is_too_large = isinstance(error, BodyTooLargeError)
    kind = _TOO_LARGE if is_too_large else _TYPES.get(error.type, error.type)
    told = MessageErrorBody(type=kind, message=error.told, param=error.param)
    return MessageErrorReply(error=told, request_id=request_id)
