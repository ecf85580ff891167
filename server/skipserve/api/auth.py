"""Asks for an API key on every route that is not public, before anything else is looked at."""

import hashlib
import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from skipserve.errors import AuthenticationError

PUBLIC_PATHS = frozenset({"/health", "/ready", "/version"})
_STATE_NAME = "key_digest"


class RequireKey:
    """Lets a request pass if its path is public or its key is one of those set.

    Decides on the path that the router will see, never on a URL put together from headers. Whose
    request it is stands in the scope's state, as a digest of the key.

    Args:
        app: what comes next.
        keys: the keys; none leaves the server open.
    """

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self._app = app
        self._digests = tuple(_digest(key) for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app.

        Raises:
            AuthenticationError: the key is missing or wrong.
        """
        is_public = scope["type"] == "lifespan" or scope.get("path") in PUBLIC_PATHS
        if self._digests and not is_public:
            key = _bearer(scope)
            if not self._is_known(key):
                raise AuthenticationError(
                    "this server wants an API key: send it as Authorization: Bearer KEY"
                )
            scope.setdefault("state", {})[_STATE_NAME] = _digest(key or "")
        await self._app(scope, receive, send)

    def _is_known(self, key: str | None) -> bool:
        """Compare with every key in the same time, whichever matches."""
        given = _digest(key or "")
        matches = [secrets.compare_digest(given, digest) for digest in self._digests]
        return key is not None and any(matches)


def get_key_digest(request: Request) -> bytes | None:
    """Return the digest of a request's API key, None on an open server; for FastAPI's `Depends`."""
    digest: bytes | None = getattr(request.state, _STATE_NAME, None)
    return digest


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _bearer(scope: Scope) -> str | None:
    scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None
