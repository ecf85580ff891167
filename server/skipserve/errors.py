"""The one tree of errors that a client can be told of.

SkipserveError                  500  server_error
 +- InvalidRequestError         400  invalid_request_error
 |   +- PolicyFitError          400  invalid_request_error
 +- AuthenticationError         401  authentication_error
 +- KeyScopeError               403  permission_error
 +- FeatureOffError             403  permission_error
 +- ForeignOriginError          403  permission_error
 +- NotFoundError               404  not_found_error
 +- MethodNotAllowedError       405  invalid_request_error
 +- RequestTimeoutError         408  timeout_error
 +- ConflictError               409  conflict_error
 +- BodyTooLargeError           413  invalid_request_error
 +- UnsupportedBodyError        415  invalid_request_error
 +- MisdirectedRequestError     421  invalid_request_error
 +- UnusableImageError          422  invalid_request_error
 +- RateLimitError              429  rate_limit_error   (Retry-After)
 +- HeadersTooLargeError        431  invalid_request_error
 +- UnavailableError            503  overloaded_error   (Retry-After)
 +- EngineError                 500  server_error
 +- StorageError                500  server_error
"""

from typing import ClassVar

_MAX_MESSAGE_LENGTH = 3000


class SkipserveError(Exception):
    """An error with a message that is safe to show to a client.

    Args:
        message: what is wrong, the offending value, what would be right; no paths, no addresses.
        param: the field of the request that is at fault, where there is one.
        reason: for the log, the `reason` under which the metrics count it, where they do.
        retry_after_seconds: when to come back, where that helps; None for what the kind says.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    retry_after_seconds: int | None = None

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        reason: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.reason = reason
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds

    @property
    def told(self) -> str:
        """What a client is told: the message, within bounds."""
        return self.message[:_MAX_MESSAGE_LENGTH]


class InvalidRequestError(SkipserveError):
    """A field is missing, misspelt, out of range or not supported."""

    status = 400
    type = "invalid_request_error"


class PolicyFitError(InvalidRequestError):
    """A skip policy contradicts itself or does not fit the loaded model."""


class AuthenticationError(SkipserveError):
    """The API key is missing or wrong."""

    status = 401
    type = "authentication_error"


class KeyScopeError(SkipserveError):
    """The API key is good, but not for this."""

    status = 403
    type = "permission_error"


class FeatureOffError(SkipserveError):
    """The operator has not switched on what was asked for."""

    status = 403
    type = "permission_error"


class ForeignOriginError(SkipserveError):
    """A web page of another origin had a browser send the request."""

    status = 403
    type = "permission_error"


class NotFoundError(SkipserveError):
    """No such route, model or skip policy."""

    status = 404
    type = "not_found_error"


class MethodNotAllowedError(SkipserveError):
    """The route exists, for another method."""

    status = 405
    type = "invalid_request_error"


class RequestTimeoutError(SkipserveError):
    """The request waited, or ran, longer than it may."""

    status = 408
    type = "timeout_error"


class ConflictError(SkipserveError):
    """What is asked for does not go with what there is."""

    status = 409
    type = "conflict_error"


class BodyTooLargeError(SkipserveError):
    """The request body is over the limit."""

    status = 413
    type = "invalid_request_error"


class UnsupportedBodyError(SkipserveError):
    """The request body is not JSON."""

    status = 415
    type = "invalid_request_error"


class MisdirectedRequestError(SkipserveError):
    """The request is for another host than this server."""

    status = 421
    type = "invalid_request_error"


class UnusableImageError(SkipserveError):
    """An image, a video or a sound cannot be decoded or is over a limit."""

    status = 422
    type = "invalid_request_error"


class RateLimitError(SkipserveError):
    """Whoever asks has used what it may for now; `retry_after_seconds` says when to come back."""

    status = 429
    type = "rate_limit_error"
    retry_after_seconds: int = 1


class HeadersTooLargeError(SkipserveError):
    """The head of the request is over the limit."""

    status = 431
    type = "invalid_request_error"


class UnavailableError(SkipserveError):
    """The server is loading, draining or full; `retry_after_seconds` says when to come back."""

    status = 503
    type = "overloaded_error"
    retry_after_seconds: int = 1


class EngineError(SkipserveError):
    """The engine failed or died while it ran the request."""


class StorageError(SkipserveError):
    """A file of the server's cannot be written; its folder may be read-only."""
