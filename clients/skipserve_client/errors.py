"""The errors that the client raises.

ClientError
 +- ConnectionFailedError   no server answered, or the connection broke
 +- ApiError                the server answered with an error
 +- ProtocolError           the answer is not one of skipserve's
 +- PictureError            the picture cannot be read or is of no known kind
 +- UnsendableError         what is asked cannot be written as a request
"""

import json
import re

import httpx

_TAGS = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_MOST_READ = 2000


class ClientError(Exception):
    """Any failure of a call; its text is one line that says what is wrong."""


class ConnectionFailedError(ClientError):
    """No server answered, or the connection broke before the answer was complete."""


class ProtocolError(ClientError):
    """The answer is not in the form of a skipserve server."""


class PictureError(ClientError):
    """A picture cannot be read or is of no known kind."""


class UnsendableError(ClientError):
    """What is asked cannot be written as a request: a key no header can hold, a field no JSON."""


class ApiError(ClientError):
    """The server answered with an error.

    Attributes:
        status: the HTTP status, or the code of an error inside a stream.
        message: what the server says.
        param: the field of the request that is at fault, where the server names one.
        type: the server's kind of error, such as "invalid_request_error".
        retry_after_seconds: when to come back, where the server says.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        type: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{message} (HTTP {status})")
        self.status = status
        self.message = message
        self.param = param
        self.type = type
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def from_response(cls, response: httpx.Response) -> "ApiError":
        """Read an error reply whose body is already there."""
        retry_after = response.headers.get("Retry-After", "")
        seconds = float(retry_after) if retry_after.isdecimal() else None
        return cls.from_body(response.text, response.status_code, seconds)

    @classmethod
    def from_body(
        cls, body: str, status: int, retry_after_seconds: float | None = None
    ) -> "ApiError":
        """Read `{"error": {...}}`, or make do with whatever else a proxy may have sent."""
        try:
            error = json.loads(body)["error"]
            message = str(error["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            error, message = {}, _reason_in(body)
        code = error.get("code")
        return cls(
            code if isinstance(code, int) else status,
            message,
            param=error.get("param"),
            type=error.get("type"),
            retry_after_seconds=retry_after_seconds,
        )


def _reason_in(body: str) -> str:
    """Return what a body of another form says, in a line; of a web page, its text."""
    begun = body.strip()[:_MOST_READ]
    text = _TAGS.sub(" ", begun) if begun.startswith("<") else begun
    return " ".join(text.split())[:200] or "the server gave no reason"
