"""Images by URL: the rows of the security table on fetching."""

import ast
import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from fetching import LIMITS, Fetching, Names, fetch, with_host
from picture_host import answer, drip, flood, picture_host, redirect
from pictures import question

import skipserve
from skipserve.api.forms.chat import read_chat
from skipserve.api.wire import ChatForm
from skipserve.app import Built
from skipserve.errors import (
    FeatureOffError,
    InvalidRequestError,
    SkipserveError,
    UnusableImageError,
)
from skipserve.media.fetch_fault import FetchFault
from skipserve.media.hosts import MediaHosts
from skipserve.media.remote import FetchLimits

pytestmark = pytest.mark.fast

ROOT = Path(str(skipserve.__file__)).parent
NOT_PUBLIC = (
    *("127.0.0.1", "10.0.0.1", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0"),
    *("100.64.0.1", "224.0.0.1", "::1", "fd00:ec2::254", "fe80::1", "::ffff:127.0.0.1"),
    "64:ff9b::7f00:1",
)


class Packets(httpx.AsyncBaseTransport):
    """Holds that none is sent: each try to connect is an error."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"sent {request.url}")


def refused(
    url: str,
    expected: type[SkipserveError],
    names: Names | None = None,
    listed: Sequence[str] = (),
) -> FetchFault:
    """Check that a URL is refused before anything is sent; return why."""
    fetching = Fetching(names or Names())
    fetcher = fetching.fetcher(*listed, takes_any=not listed, transport=Packets())
    with pytest.raises(expected) as caught:
        asyncio.run(fetch(fetcher, url))
    assert caught.value.param == "image 0"
    (fault,) = fetching.faults
    return fault


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_s01_s04_addresses_that_are_not_public(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    assert refused(f"http://{host}/a.png", FeatureOffError) is FetchFault.ADDRESS


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_s01_s04_names_that_lead_to_them(address: str) -> None:
    names = Names({"evil.example": [[address]], "mixed.example": [["8.8.8.8", address]]})
    for host in names.table:
        assert refused(f"https://{host}/", FeatureOffError, names) is FetchFault.ADDRESS


def test_s01_names_on_the_list_lead_to_none_either() -> None:
    names = Names({"images.example": [["169.254.169.254"]]})
    url = "http://images.example/a.png"
    assert refused(url, FeatureOffError, names, ["images.example"]) is FetchFault.ADDRESS


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "017700000001"),
        *("[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1", "127.0.0.1.", "1.2.3.4.5", "a%2e.b"),
    ],
)
def test_s01_odd_spellings_of_addresses(host: str) -> None:
    names = Names()
    assert refused(f"http://{host}/a.png", InvalidRequestError, names) is FetchFault.URL
    assert names.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://allowed.example\\@127.0.0.1/",
        "http://127.0.0.1\\@allowed.example/",
        "http://allowed.example\\.evil.example/",
        "http://allowed.example@127.0.0.1/",
        "http://user:password@allowed.example/",
        "http://@allowed.example/",
        "http://allowed.example%2f@127.0.0.1/",
        "http://allowed.example%2f.evil.example/",
        "http://allowed.example%00.evil.example/",
        "http://allowed.exam\tple/",
        "http://allowed.example/\r\nHost: evil.example",
        "http://allowed.example /",
        " http://allowed.example/",
        "http://allowed.example:80:90/",
        "http://allowed.example:0/",
        "http://allowed.example:99999/",
        "http:///allowed.example/",
        "http:allowed.example",
        "//allowed.example/a.png",
        "/a.png",
        "",
        "x" * 9000,
    ],
)
def test_s02_what_parsers_read_differently(url: str) -> None:
    assert refused(url, InvalidRequestError, listed=["allowed.example"]) is FetchFault.URL


@pytest.mark.parametrize(
    "url",
    ["http://evil.example#@allowed.example/", "http://evil.example?@allowed.example/"],
)
def test_s02_the_host_is_what_is_asked(url: str) -> None:
    assert refused(url, FeatureOffError, listed=["allowed.example"]) is FetchFault.HOST


def test_s02_the_address_that_was_checked_is_connected_to() -> None:
    """A second look-up would lead elsewhere: names are looked up once."""

    async def run() -> None:
        async with picture_host({"/a.png": answer(b"picture")}) as host:
            names = Names({"images.example": [["127.0.0.1"], ["127.0.0.2"]]})
            listed = f"images.example:{host.port}", "127.0.0.1"
            fetcher = Fetching(names).fetcher(*listed)
            assert await fetch(fetcher, f"http://images.example:{host.port}/a.png") == [b"picture"]
            assert names.asked == ["images.example"]
            assert f"Host: images.example:{host.port}\r\n" in host.heads[0]
            with pytest.raises(FeatureOffError, match="not public"):
                await fetch(fetcher, f"http://images.example:{host.port}/a.png")
            assert len(host.heads) == 1
            await fetcher.close()

    asyncio.run(run())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://127.0.0.2:{port}/secret", FeatureOffError),
        ("http://169.254.169.254/latest/meta-data", FeatureOffError),
        ("//localhost:{port}/secret", FeatureOffError),
        ("http://user@127.0.0.1:{port}/secret", InvalidRequestError),
        ("\\\\127.0.0.1:{port}\\secret", InvalidRequestError),
        ("file:///etc/passwd", InvalidRequestError),
        ("gopher://127.0.0.1:{port}/secret", InvalidRequestError),
        ("data:image/png;base64,AAAA", InvalidRequestError),
    ],
)
def test_s03_each_redirect_is_checked(
    status: int, location: str, expected: type[SkipserveError]
) -> None:
    async def run() -> None:
        answers = {"/secret": answer(b"secret")}
        async with picture_host(answers) as host:
            answers["/a.png"] = redirect(location.format(port=host.port), status)
            fetcher = Fetching(Names()).fetcher(f"127.0.0.1:{host.port}")
            with pytest.raises(expected) as caught:
                await fetch(fetcher, f"http://127.0.0.1:{host.port}/a.png")
            assert caught.value.param == "image 0"
            assert host.paths == ["/a.png"]
            await fetcher.close()

    asyncio.run(run())


def test_s03_redirects_end() -> None:
    answers = {f"/{index}": redirect(f"/{index + 1}") for index in range(9)} | {"/9": answer(b"x")}
    files, host = with_host(answers, "/6")
    assert (files, host.paths) == ([b"x"], ["/6", "/7", "/8", "/9"])
    with pytest.raises(UnusableImageError, match="more than 3 times"):
        with_host(answers, "/5")


def test_s05_one_function_fetches() -> None:
    """Beside it only the tool that downloads models, when the operator asks, opens anything."""
    callers = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if "handle_async_request" in path.read_text() or "AsyncHTTPTransport" in path.read_text()
    }
    assert callers == {"media/remote.py"}
    tree = ast.parse((ROOT / "media" / "remote.py").read_text())
    sending = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.AsyncFunctionDef)
        and any(isinstance(it, ast.Attribute) and it.attr == "handle_async_request"
                for it in ast.walk(function))
    }  # fmt: skip
    assert sending == {"_ask"}


def test_s06_urls_are_off_until_switched_on(idle: Built) -> None:
    assert idle.serving.preparation.fetcher is None
    asked = read_chat(ChatForm.model_validate(question("?", "https://example.com/a.png")))
    with pytest.raises(FeatureOffError, match="--media-hosts or --allow-any-media-host") as caught:
        idle.serving.processor.read_images(asked)
    assert caught.value.param == "messages[0].content[0].image_url"


def test_s06_only_hosts_on_the_list_are_asked() -> None:
    assert not MediaHosts().is_on
    url = "http://other.example/a.png"
    assert refused(url, FeatureOffError, listed=["images.example"]) is FetchFault.HOST
    for port in (22, 6379, 8080):
        assert refused(f"http://8.8.8.8:{port}/", FeatureOffError) is FetchFault.HOST


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        (answer(b"x", length=100_001), "too large"),
        (answer(b"x" * 100_001), "too large"),
        (flood, "too large"),
        (answer(b"x", length=10), "cannot be reached"),
        (answer(b"x" * 10, "Content-Encoding: gzip"), "compressed"),
        (answer(b"x", status="404 Not Found"), "status 404"),
        (answer(b"x", status="206 Partial Content"), "status 206"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "cannot be reached"),
        (b"", "cannot be reached"),
    ],
)
def test_s07_bodies_end_at_the_limit(wanted: object, fault: str) -> None:
    with pytest.raises(UnusableImageError, match=fault):
        with_host({"/a.png": wanted}, "/a.png")  # type: ignore[dict-item]


def test_s07_slow_bodies_end_at_the_time() -> None:
    limits = FetchLimits(10**6, 10**6, seconds=0.2, num_requests=2)
    with pytest.raises(UnusableImageError, match=r"may take 0\.2 s"):
        with_host({"/a.png": drip}, "/a.png", limits=limits)


def test_s07_all_urls_are_read_before_one_is_fetched() -> None:
    fetching = Fetching(Names())
    fetcher = fetching.fetcher("127.0.0.1:9")
    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(fetch(fetcher, "http://127.0.0.1:9/a.png", "ftp://127.0.0.1/b.png"))
    assert caught.value.param == "image 1"
    assert fetching.names.asked == []


def test_s08_a_request_has_one_budget_of_bytes() -> None:
    answers = {"/a.png": answer(b"x" * 75_000)}
    files, _ = with_host(answers, "/a.png", "/a.png")
    assert sum(map(len, files)) == LIMITS.request_bytes
    with pytest.raises(UnusableImageError, match="at most 0 bytes are left"):
        with_host(answers, "/a.png", "/a.png", "/a.png")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "FILE://localhost/etc/passwd", "/etc/passwd", "ftp://a.example/"]
)
def test_s09_files_are_not_read(url: str) -> None:
    assert refused(url, InvalidRequestError) is FetchFault.URL


def test_s10_text_is_not_searched_for_urls() -> None:
    text = "![a](http://127.0.0.1/a.png) <img src=http://127.0.0.1/b.png> http://127.0.0.1/c.png"
    assert read_chat(ChatForm.model_validate(question(text))).image_uris == ()
