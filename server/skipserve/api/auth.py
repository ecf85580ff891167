"""Asks for an API key on every route that is not public, before anything else is looked at."""

import hashlib
import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from skipserve.errors import AuthenticationError, KeyScopeError

PUBLIC_PATHS = frozenset({"/health", "/ready", "/version"})
_METRICS_PATH = "/metrics"
_STATE_NAME = "key_digest"


class RequireKey:
    """Lets a request pass if its path is public or its key is one of those set.

    Decides on the path that the router will see, never on a URL put together from headers. Whose
    request it is stands in the scope's state, as a digest of the client's key.

    Args:
        app: what comes next.
        keys: those of clients, which open everything; none leaves the server open.
        metrics_keys: those that open `GET /metrics` and nothing else, unless they are clients' too.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str], metrics_keys: Iterable[str] = ()) -> None:
        self._app = app
        self._digests = tuple(_digest(key) for key in keys)
        self._metrics_digests = tuple(_digest(key) for key in metrics_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app.

        Raises:
            AuthenticationError: the key is missing or wrong.
            KeyScopeError: the key opens the metrics only.
        """
        self.check(scope)
        await self._app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Let a request pass, or raise as above."""
        is_public = scope["type"] == "lifespan" or scope.get("path") in PUBLIC_PATHS
        if self._digests and not is_public:
            self._check(scope)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        header = headers.get("authorization", "")
        # Anthropic's clients send keys in a header of their own.
        key = _bearer(header) or headers.get("x-api-key", "").strip() or None
        given = _digest(key or "")
        # Always both: what matches changes nothing in the time it takes.
        is_client, is_reader = _is_in(given, self._digests), _is_in(given, self._metrics_digests)
        if key is not None and is_client:
            scope.setdefault("state", {})[_STATE_NAME] = given
        elif key is None or not is_reader:
            raise AuthenticationError(_tell_fault(header, key))
        elif (scope.get("method"), scope["path"]) != ("GET", _METRICS_PATH):
            raise KeyScopeError(f"this API key opens GET {_METRICS_PATH} and nothing else")


async def get_key_digest(request: Request) -> bytes | None:
    """Return the digest of a request's API key, None on an open server; for FastAPI's `Depends`."""
    digest: bytes | None = getattr(request.state, _STATE_NAME, None)
    return digest


def _is_in(given: bytes, digests: Iterable[bytes]) -> bool:
    """Compare with every digest in the same time, whichever matches."""
    matches = [secrets.compare_digest(given, digest) for digest in digests]
    return any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _bearer(header: str) -> str | None:
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def _tell_fault(header: str, key: str | None) -> str:
    """Say what is wrong with a header, without what it holds: that may be a key of elsewhere."""
    if key is not None:
        return "the API key is wrong: it is none of those that this server was given"
    form = "send it in the header Authorization: Bearer KEY, or as x-api-key: KEY"
    if not header.strip():
        return f"this server wants an API key: {form}"
    if header.strip().lower() == "bearer":
        return f"the header Authorization holds no API key behind Bearer: {form}"
    return f"this server wants an API key, and the header Authorization has no Bearer: {form}"
