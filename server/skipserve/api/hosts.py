"""Refuses what a web page of elsewhere has a browser send: by the host it names, and its origin."""

import re
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from skipserve.errors import ForeignOriginError, MisdirectedRequestError

# Asked for under any name, and all they say is that the server lives: load balancers send what
# host they like, or none.
_PROBES = frozenset({"/health", "/ready"})
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::(?P<port>[0-9]{0,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class CheckHost:
    """Lets a request pass that names a host of this server, and comes from no page of another.

    A page can have a browser ask this server under the page's own name (DNS rebinding), and reads
    the replies: its host gives it away. Or it asks under the server's name, and its origin does.
    Starlette's TrustedHostMiddleware, which knows the first half, has replies of another form, and
    would turn away probes and scrapes, which ask for an address.

    Args:
        app: what comes next.
        hosts: names and addresses without ports; `*` is any, `*.example.com` any below it. The
            address that a connection came to need not be among them: no name leads a page there.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(map(plain_host, hosts))
        self._endings = tuple(host[1:] for host in self._hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app.

        Raises:
            MisdirectedRequestError: the host is none of this server's.
            ForeignOriginError: a page of another origin sent the request.
        """
        if scope["type"] == "http" and scope["path"] not in _PROBES:
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            self._check_host(host, scope)
            for origin in headers.getlist("origin"):
                _check_origin(origin, host)
        await self._app(scope, receive, send)

    def _check_host(self, header: str, scope: Scope) -> None:
        if "*" in self._hosts:
            return
        found = _AUTHORITY.fullmatch(header)
        host = plain_host(found["host"]) if found else ""
        address = plain_host((scope.get("server") or ("",))[0])
        if not host or not (host in self._hosts or host == address or host.endswith(self._endings)):
            raise MisdirectedRequestError(
                "the Host of the request is none of this server's: ask for it by the name or "
                "address where it runs, or start it with --allowed-hosts NAME"
            )


def _check_origin(origin: str, host: str) -> None:
    """Take what a page of this very server sends; only browsers say where a request comes from."""
    scheme, _, authority = origin.lower().partition("://")
    default = _DEFAULT_PORTS.get(scheme)
    sent_by = _AUTHORITY.fullmatch(authority)
    sent_to = _AUTHORITY.fullmatch(host)
    if default and sent_by and sent_to and _ends(sent_by, default) == _ends(sent_to, default):
        return
    raise ForeignOriginError(
        "the Origin of the request is another than its Host: web pages of elsewhere may not ask "
        "this server; let their own server ask"
    )


def _ends(authority: re.Match[str], default_port: int) -> tuple[str, int]:
    return plain_host(authority["host"]), int(authority["port"] or default_port)


def plain_host(host: str) -> str:
    """Return the one spelling of a name or an address: without brackets, in small letters."""
    host = host.lower().removeprefix("[").removesuffix("]")
    try:
        return ip_address(host).compressed
    except ValueError:
        return host
