"""Tests of which hosts and origins a request may name."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from skipserve.api.hosts import CheckHost, plain_host
from skipserve.errors import ForeignOriginError, MisdirectedRequestError

pytestmark = pytest.mark.fast

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def ask(
    host: str | None,
    *origins: str,
    hosts: tuple[str, ...] = LOOPBACK,
    address: str = "127.0.0.1",
    path: str = "/v1/models",
) -> bool:
    """Send a request over a connection to an address; return whether it got through."""
    reached = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope)

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Message) -> None:
        raise NotImplementedError

    headers = [(b"origin", origin.encode("latin-1")) for origin in origins]
    if host is not None:
        headers.append((b"host", host.encode("latin-1")))
    scope = {"type": "http", "path": path, "headers": headers, "server": (address, 8000)}
    asyncio.run(CheckHost(app, hosts)(scope, receive, send))
    return bool(reached)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LocalHost:1", "127.0.0.1", "127.0.0.1:8000"),
        *("[::1]", "[::1]:8000", "[0:0::1]:8000", "localhost:"),
    ],
)
def test_names_of_this_machine_with_any_port(host: str) -> None:
    assert ask(host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            None,
            "",
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
        ),
        *("evil-localhost", "xlocalhost", "localhost@evil.example", "evil.example@localhost"),
        *(
            "localhost,evil.example",
            "localhost evil.example",
            "localhost/",
            "localhost?",
            "localhost#",
        ),
        *("localhost\\", "localhost:8000:8000", "localhost:x", "::1", "[::1", "[::2]", "10.0.0.5"),
        *("127.0.0.2", "*", "\u00e9"),
    ],
)
def test_no_other_host(host: str | None) -> None:
    with pytest.raises(MisdirectedRequestError, match="--allowed-hosts"):
        ask(host)


def test_the_address_of_the_connection_is_a_host_whatever_the_names() -> None:
    """Kubernetes' probes and Prometheus ask for the pod's."""
    named = ("llm.example.com",)
    assert ask("10.1.2.3:8000", hosts=named, address="10.1.2.3")
    assert ask("[fd00::7]:8000", hosts=named, address="fd00:0::7")
    for host, address in (("10.1.2.3", "10.1.2.4"), ("", ""), (None, "10.1.2.3")):
        with pytest.raises(MisdirectedRequestError):
            ask(host, hosts=named, address=address)


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probes_may_ask_under_any_name(path: str) -> None:
    for host in ("evil.example", "", None):
        assert ask(host, path=path)
    assert ask("evil.example", "http://elsewhere", path=path)


@pytest.mark.parametrize("path", ["/health/", "//health", "/version", "/metrics", "/HEALTH"])
def test_what_is_no_probe_may_not(path: str) -> None:
    with pytest.raises(MisdirectedRequestError):
        ask("evil.example", path=path)


def test_names_below_a_name_and_any_name() -> None:
    below = ("*.example.com",)
    assert ask("llm.Example.com:443", hosts=below)
    assert ask("a.b.example.com", hosts=below)
    for host in ("example.com", "evilexample.com", "example.com.evil", "localhost"):
        with pytest.raises(MisdirectedRequestError):
            ask(host, hosts=below)
    assert ask("whatever", hosts=("*",))
    assert ask("", hosts=("*",))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8000", "localhost:8000"),
        ("HTTP://LocalHost:8000", "localhost:8000"),
        ("http://127.0.0.1", "127.0.0.1:80"),
        ("http://[::1]:8000", "[0::1]:8000"),
        ("https://llm.example.com", "llm.example.com"),
        ("https://llm.example.com:443", "llm.example.com"),
    ],
)
def test_a_page_of_the_server_itself(origin: str, host: str) -> None:
    assert ask(host, origin, hosts=("*",))


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "", "http://evil.example", "http://localhost", "http://localhost:3000"),
        *("https://localhost", "http://127.0.0.1:8000", "http://localhost:8000.evil.example"),
        *("http://localhost:8000@evil.example", "http://evil.example/localhost:8000"),
        *("chrome-extension://localhost:8000", "file://localhost:8000", "localhost:8000"),
        *("http://localhost:8000/", "http://localhost:8000 http://evil.example", "http://"),
    ],
)
def test_no_other_page(origin: str) -> None:
    for hosts in (("*",), LOOPBACK):
        with pytest.raises(ForeignOriginError, match="Origin"):
            ask("localhost:8000", origin, hosts=hosts)


def test_each_of_several_origins_counts() -> None:
    with pytest.raises(ForeignOriginError):
        ask("localhost:8000", "http://localhost:8000", "http://evil.example")


def test_a_host_is_spelt_one_way() -> None:
    assert plain_host("[0:0::0:1]") == plain_host("::1") == "::1"
    assert plain_host("LLM.Example.com") == "llm.example.com"
