"""Fetches the images that requests name by URL: the one place of the server that fetches anything.

A URL is read once, by one parser; its host is looked up once, and the connection goes to one of
the addresses that were checked. So does each URL that a host leads on to.
"""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

import httpx

from skipserve.errors import (
    FeatureOffError,
    InvalidRequestError,
    SkipserveError,
    UnusableImageError,
)
from skipserve.media.data_uri import EncodedImage
from skipserve.media.fetch_fault import FetchFault
from skipserve.media.hosts import IpAddress, MediaHosts, is_host
from skipserve.media.places import Owner, Places
from skipserve_policies.sizes import Modality

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL = 8192
# What parsers disagree on: some drop it, some take it for a slash.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")
_WITH_USER = re.compile(r"[^/?#]*//[^/?#]*@")
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MAX_ADDRESSES = 4
_CONNECT_SECONDS = 5.0
# No compression: a small file must not become a large one before the decoder has its limits.
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "skipserve"}
_ACCEPTED = {
    Modality.IMAGE: "image/jpeg, image/png, image/webp, image/gif, image/bmp",
    Modality.VIDEO: "image/gif, image/webp, image/apng",
    Modality.AUDIO: "audio/wav, audio/x-wav",
}
_ERRORS: dict[FetchFault, type[SkipserveError]] = {
    FetchFault.URL: InvalidRequestError,
    FetchFault.HOST: FeatureOffError,
    FetchFault.ADDRESS: FeatureOffError,
}

# Returns the addresses of a host, as the system spells them.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True)
class RemoteImage:
    """An image that is elsewhere.

    Attributes:
        url: where, as the client wrote it.
        param: the field of the request that held it.
    """

    url: str
    param: str


@dataclass(frozen=True)
class FetchLimits:
    """How much may be fetched.

    Attributes:
        image_bytes: bytes of one image.
        request_bytes: the same, over all images of a request.
        seconds: time for all images of a request.
        num_requests: requests whose images are fetched, or lie here undecoded, at a time.
    """

    image_bytes: int
    request_bytes: int
    seconds: float
    num_requests: int


class _FetchError(Exception):
    """An image was not fetched.

    Args:
        fault: why.
        message: the same, in words for the client.
    """

    def __init__(self, fault: FetchFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class ImageFetcher:
    """Fetches images, under limits and from the hosts that the operator allows.

    Args:
        hosts: those hosts.
        limits: the limits.
        on_fault: hears why each image was not fetched that was not.
        resolve: looks hosts up; the system does unless said otherwise.
        transport: sends what is asked; as itself and not through a proxy, which would look hosts
            up again.
        modality: what is fetched.
    """

    def __init__(
        self,
        hosts: MediaHosts,
        limits: FetchLimits,
        on_fault: Callable[[FetchFault], None] = lambda _: None,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        modality: Modality = Modality.IMAGE,
    ) -> None:
        self._hosts = hosts
        self._limits = limits
        self._on_fault = on_fault
        self._headers = {"Accept": _ACCEPTED[modality], **_HEADERS}
        # The system's look-ups cannot be given up: they get threads that nothing else waits for.
        self._threads = ThreadPoolExecutor(limits.num_requests, "look-up")
        self._resolve = resolve or self._look_up
        self._places = Places(limits.num_requests)
        # Nothing of a client's: no cookies, no proxies, no redirects of its own. A connection is
        # for one request, as TLS has proved one name.
        self._transport = transport or httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )

    async def close(self) -> None:
        """Close what is open; wait for no look-up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._transport.aclose()

    @asynccontextmanager
    async def fetched(
        self, images: Sequence[EncodedImage | RemoteImage], owner: Owner
    ) -> AsyncGenerator[list[EncodedImage], None]:
        """Hold the files of a request's images, those that are elsewhere fetched.

        Files are held while their request has a place: leave when they are decoded. Cancelling it
        ends the fetch.

        Args:
            images: one is fetched after the other.
            owner: who shares its turns among all of its requests.

        Raises:
            InvalidRequestError: a URL is not of a form that is fetched.
            FeatureOffError: its host may not be asked, or not at its address.
            UnusableImageError: its host gives no image within the limits.
        """
        for image in images:
            if isinstance(image, RemoteImage):
                with self._telling(image.param):
                    self._read_url(image.url)
        async with self._places.hold(owner):
            yield await self._fetch_all(images)

    async def _fetch_all(self, images: Sequence[EncodedImage | RemoteImage]) -> list[EncodedImage]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.seconds
        left = self._limits.request_bytes
        files: list[EncodedImage] = []
        for image in images:
            if isinstance(image, RemoteImage):
                with self._telling(image.param):
                    content = await self._fetch_until(end, image.url, left)
                left -= len(content)
                files.append(EncodedImage(content, image.param))
            else:
                files.append(image)
        return files

    async def _fetch_until(self, end: float, url: str, left: int) -> bytes:
        try:
            async with asyncio.timeout_at(end):
                return await self._fetch(url, min(left, self._limits.image_bytes))
        except TimeoutError as error:
            message = f"the files of a request may take {self._limits.seconds:g} s to be fetched"
            raise _FetchError(FetchFault.TOO_SLOW, message) from error
        except httpx.HTTPError as error:
            message = "the host of the file cannot be reached, or its answer is no whole HTTP"
            raise _FetchError(FetchFault.UNREACHABLE, message) from error

    async def _fetch(self, text: str, max_bytes: int) -> bytes:
        url = self._read_url(text)
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._ask(url, await self._addresses(url))
            try:
                if response.status_code not in _REDIRECTS:
                    return await _content(response, max_bytes)
                url = self._read_url(response.headers.get("location", ""), url)
            finally:
                await response.aclose()
        message = f"the URL of the file leads on to others more than {_MAX_REDIRECTS} times"
        raise _FetchError(FetchFault.REDIRECTS, message)

    def _read_url(self, text: str, base: httpx.URL | None = None) -> httpx.URL:
        """Return a URL that may be asked, as it will be; `base` is what leads on to it."""
        url = _parsed(text, base)
        host, default_port = url.raw_host.decode("ascii"), _DEFAULT_PORTS[url.scheme]
        port = _port(url)
        if not self._hosts.may_ask(host, port, default_port):
            place = host if port == default_port else f"{host}, port {port}"
            message = (
                f"nothing is fetched from {place} on this server; --media-hosts names the "
                "hosts, --allow-any-media-host allows all that are public"
            )
            raise _FetchError(FetchFault.HOST, message)
        return url

    async def _addresses(self, url: httpx.URL) -> list[IpAddress]:
        """Return the addresses that a URL's host has, if each of them may be connected to."""
        host, port = url.raw_host.decode("ascii"), _port(url)
        try:
            found = await self._resolve(host, port)
            addresses = list(dict.fromkeys(map(ip_address, found)))
        except (OSError, ValueError):
            addresses = []
        if not addresses or not all(self._hosts.may_connect(it, port) for it in addresses):
            # Not told apart: a client could learn which names the operator's network has.
            message = (
                f"the host {host} has no address, or one that is not public; --media-hosts names "
                "other addresses that may be connected to"
            )
            raise _FetchError(FetchFault.ADDRESS, message)
        return addresses[:_MAX_ADDRESSES]

    async def _ask(self, url: httpx.URL, addresses: Sequence[IpAddress]) -> httpx.Response:
        """Return the answer of the first address that takes a connection, its body unread."""
        *firsts, last = addresses
        for address in firsts:
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._transport.handle_async_request(self._request(url, address))
        return await self._transport.handle_async_request(self._request(url, last))

    def _request(self, url: httpx.URL, address: IpAddress) -> httpx.Request:
        """Return what is asked of one address; TLS is still to prove the name."""
        return httpx.Request(
            "GET",
            url.copy_with(host=str(address), fragment=None),
            headers=self._headers | {"Host": url.netloc.decode("ascii")},
            extensions={
                "sni_hostname": url.raw_host.decode("ascii"),
                "timeout": {"connect": _CONNECT_SECONDS},
            },
        )

    async def _look_up(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]

    @contextmanager
    def _telling(self, param: str) -> Iterator[None]:
        """Tell the client, and count, why an image was not fetched."""
        try:
            yield
        except _FetchError as error:
            self._on_fault(error.fault)
            kind = _ERRORS.get(error.fault, UnusableImageError)
            raise kind(str(error), param, reason=error.fault) from error


def _parsed(text: str, base: httpx.URL | None) -> httpx.URL:
    """Return a URL of a form that is fetched.

    Raises:
        _FetchError: it is none, or one that others may read otherwise.
    """
    if len(text) > _MAX_URL or _AMBIGUOUS.search(text):
        raise _wrong_url(f"is longer than {_MAX_URL} characters, or has spaces or backslashes")
    try:
        url = base.join(text) if base else httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise _wrong_url("is none") from error
    if url.scheme not in _DEFAULT_PORTS:
        raise _wrong_url("is none of http, https or data")
    if url.userinfo or _WITH_USER.match(text):
        raise _wrong_url("has a name or a password in it")
    if not is_host(url.raw_host.decode("ascii")) or not 0 < _port(url) < 65536:
        raise _wrong_url("has no host name or address in its usual spelling")
    return url


def _port(url: httpx.URL) -> int:
    return _DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def _wrong_url(fault: str) -> _FetchError:
    return _FetchError(
        FetchFault.URL,
        f"the URL of the file, or one that it leads on to, {fault}; it must be such as "
        "https://images.example.com/a.png, or a data URI",
    )


async def _content(response: httpx.Response, max_bytes: int) -> bytes:
    """Return the body of an answer as it is sent."""
    if response.status_code != 200:
        message = f"the host of the file answers with status {response.status_code}"
        raise _FetchError(FetchFault.STATUS, message)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        message = "the host of the file sends it compressed, which it was asked not to"
        raise _FetchError(FetchFault.ENCODING, message)
    if int(response.headers.get("content-length", 0)) > max_bytes:
        raise _too_large(max_bytes)
    content = bytearray()
    async for chunk in response.aiter_raw():
        if len(content) + len(chunk) > max_bytes:
            raise _too_large(max_bytes)
        content += chunk
    return bytes(content)


def _too_large(max_bytes: int) -> _FetchError:
    message = f"the file is too large: at most {max_bytes} bytes are left for it"
    return _FetchError(FetchFault.TOO_LARGE, message)
