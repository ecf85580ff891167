"""Tests of fetching: who gives way to whom, what ends it, and what is sent."""

import asyncio

import httpx
import pytest
from fetching import LIMITS, Fetching, Names, fetch, with_host
from picture_host import answer, drip, picture_host, redirect

from skipserve.errors import FeatureOffError, UnusableImageError
from skipserve.media.data_uri import EncodedImage
from skipserve.media.fetch_fault import FetchFault
from skipserve.media.hosts import MediaHosts
from skipserve.media.remote import ImageFetcher, RemoteImage

pytestmark = pytest.mark.fast


def test_files_come_in_their_order_beside_those_that_are_here() -> None:
    async def run() -> list[EncodedImage]:
        answers = {"/a.png": answer(b"a"), "/b.png": redirect("sub/c.png?x=1#part")}
        async with picture_host(answers | {"/sub/c.png?x=1": answer(b"c")}) as host:
            fetcher = Fetching(Names()).fetcher(f"127.0.0.1:{host.port}")
            base = f"http://127.0.0.1:{host.port}"
            here = EncodedImage(b"here", "1")
            first, last = (RemoteImage(base + it[1:], it[0]) for it in ("0/b.png", "2/a.png"))
            async with fetcher.fetched((first, here, last), "somebody") as files:
                return files

    assert asyncio.run(run()) == [
        EncodedImage(b"c", "0"), EncodedImage(b"here", "1"), EncodedImage(b"a", "2"),
    ]  # fmt: skip


def test_what_is_sent_says_nothing_of_the_client() -> None:
    answers = {"/a.png": answer(b"a", "Set-Cookie: a=b", "Connection: keep-alive")}
    _, host = with_host(answers, "/a.png", "/a.png")
    first, second = host.heads
    assert first == second
    names = {line.partition(":")[0].lower() for line in first.split("\r\n")[1:] if line}
    assert names == {"host", "accept", "accept-encoding", "user-agent"}
    assert "Accept-Encoding: identity\r\n" in first


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert with_host({"/a.png": answer(b"a")}, "/a.png")[0] == [b"a"]


def test_the_next_address_is_tried() -> None:
    class OneDown(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            assert request.headers["host"] == "images.example"
            assert request.extensions["sni_hostname"] == "images.example"
            if request.url.host == "2606:2800:220:1::1":
                raise httpx.ConnectError("no route")
            return httpx.Response(200, stream=httpx.ByteStream(request.url.raw_host))

    names = Names({"images.example": [["2606:2800:220:1::1", "8.8.8.8"]]})
    fetcher = Fetching(names).fetcher(takes_any=True, transport=OneDown())
    assert asyncio.run(fetch(fetcher, "https://images.example/a.png")) == [b"8.8.8.8"]


def test_tls_must_prove_the_name() -> None:
    """A host that speaks no TLS, or that of another name, is not read."""
    fetching = Fetching(Names())

    async def run() -> None:
        async with picture_host({"/a.png": answer(b"a")}) as host:
            fetcher = fetching.fetcher(f"127.0.0.1:{host.port}")
            await fetch(fetcher, f"https://127.0.0.1:{host.port}/a.png")

    with pytest.raises(UnusableImageError, match="cannot be reached"):
        asyncio.run(run())
    assert fetching.faults == [FetchFault.UNREACHABLE]


def test_the_system_looks_names_up() -> None:
    async def run() -> None:
        async with picture_host({"/a.png": answer(b"a")}) as host:
            listed = (f"localhost:{host.port}", f"no-such.invalid:{host.port}", "127.0.0.1", "::1")
            fetcher = ImageFetcher(MediaHosts.parse(listed, takes_any=False), LIMITS)
            assert await fetch(fetcher, f"http://localhost:{host.port}/a.png") == [b"a"]
            with pytest.raises(FeatureOffError, match="has no address"):
                await fetch(fetcher, f"http://no-such.invalid:{host.port}/a.png")
            await fetcher.close()

    asyncio.run(run())


def test_giving_up_ends_the_fetch_and_frees_its_place() -> None:
    async def run() -> None:
        async with picture_host({"/slow": drip, "/a.png": answer(b"a")}) as host:
            fetcher = Fetching(Names()).fetcher(f"127.0.0.1:{host.port}")
            base = f"http://127.0.0.1:{host.port}"
            for _ in range(LIMITS.num_requests + 1):
                task = asyncio.create_task(fetch(fetcher, base + "/slow"))
                while not host.heads:
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled()
                await host.has_lost.wait()
                host.heads.clear()
                host.has_lost.clear()
            assert await fetch(fetcher, base + "/a.png") == [b"a"]

    asyncio.run(run())


def test_no_owner_holds_all_places() -> None:
    async def run() -> None:
        async with picture_host({"/slow": drip, "/a.png": answer(b"a")}) as host:
            fetcher = Fetching(Names()).fetcher(f"127.0.0.1:{host.port}")
            base = f"http://127.0.0.1:{host.port}"
            slow = [asyncio.create_task(fetch(fetcher, base + "/slow")) for _ in range(4)]
            other = [RemoteImage(base + "/a.png", "")]
            async with fetcher.fetched(other, "another") as files:
                assert files == [EncodedImage(b"a", "")]
            assert host.paths.count("/slow") == LIMITS.num_requests - 1
            for task in slow:
                task.cancel()
            await asyncio.wait(slow)

    asyncio.run(run())
