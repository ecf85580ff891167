"""Asks for an API key on every route that is not public, before anything else is looked at."""

import secrets
from collections.abc import Container, Iterable, Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from skipserve.budgets.client import Client
from skipserve.budgets.clients import Clients
from skipserve.budgets.keys import digest_of_key
from skipserve.errors import AuthenticationError, KeyScopeError

# Under this name a request's state holds whose it is.
CLIENT = "client"
PUBLIC_PATHS = frozenset({"/health", "/ready", "/version"})
_METRICS_PATH = "/metrics"


class RequireKey:
    """Lets a request pass if its path is public or its key is one of those set.

    Decides on the path that the router will see, never on a URL put together from headers. Whose
    request it is stands in the scope's state, as the client.

    Args:
        app: what comes next.
        clients: those who have keys. They may do everything, but see the metrics only where there
            is no keys file, or as its admins. Without any the server is open.
        metrics_keys: those that open `GET /metrics` and nothing else, unless they are clients' too.
        public_paths: those that are asked for without a key.
    """

    def __init__(
        self,
        app: ASGIApp,
        clients: Clients,
        metrics_keys: Iterable[str] = (),
        public_paths: Container[str] = PUBLIC_PATHS,
    ) -> None:
        self._app = app
        self._clients = clients
        self._public_paths = public_paths
        self._metrics_digests = tuple(map(digest_of_key, metrics_keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app.

        Raises:
            AuthenticationError: the key is missing or wrong.
            KeyScopeError: the key opens the metrics only, or all but those.
        """
        self.check(scope)
        await self._app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Let a request pass, or raise as above."""
        is_public = scope["type"] == "lifespan" or scope.get("path") in self._public_paths
        if self._clients.are_wanted and not is_public:
            self._check(scope)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        header = headers.get("authorization", "")
        # Anthropic's clients send keys in a header of their own.
        key = _bearer(header) or headers.get("x-api-key", "").strip() or None
        given = digest_of_key(key or "")
        # Always both: what matches changes nothing in the time it takes.
        client, is_reader = self._clients.find(given), _is_in(given, self._metrics_digests)
        if key is None or (client is None and not is_reader):
            raise AuthenticationError(_tell_fault(header, key))
        opens_metrics = is_reader and (scope.get("method"), scope["path"]) == ("GET", _METRICS_PATH)
        if client is None and not opens_metrics:
            raise KeyScopeError(f"this API key opens GET {_METRICS_PATH} and nothing else")
        if client is not None:
            self._check_metrics(client, scope["path"], opens_metrics=opens_metrics)
            scope.setdefault("state", {})[CLIENT] = client

    def _check_metrics(self, client: Client, path: str, *, opens_metrics: bool) -> None:
        is_open = opens_metrics or client.is_admin or not self._clients.have_file
        if path == _METRICS_PATH and not is_open:
            raise KeyScopeError(
                f"{_METRICS_PATH} is for admin keys, and for those of --metrics-api-key"
            )


def client_of(state: Mapping[str, object], address: str) -> Client:
    """Return whose a request is, whose key was looked at: without one, its address's.

    Args:
        state: the request's.
        address: where it comes from.
    """
    client = state.get(CLIENT)
    return client if isinstance(client, Client) else Client.of_address(address)


def _is_in(given: bytes, digests: Iterable[bytes]) -> bool:
    """Compare with every digest in the same time, whichever matches."""
    matches = [secrets.compare_digest(given, digest) for digest in digests]
    return any(matches)


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
