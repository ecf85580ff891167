"""Fetches images in a test, with hosts looked up in a table."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
from picture_host import Answer, PictureHost, picture_host

from skipserve.media.data_uri import EncodedImage
from skipserve.media.fetch_fault import FetchFault
from skipserve.media.hosts import MediaHosts
from skipserve.media.remote import FetchLimits, ImageFetcher, RemoteImage

LIMITS = FetchLimits(image_bytes=100_000, request_bytes=150_000, seconds=20.0, num_requests=2)


@dataclass
class Names:
    """Looks names up in a table, each time the next of the name's answers, and keeps count.

    Attributes:
        table: for each name the addresses that each look-up tells.
        asked: the names that were looked up.
    """

    table: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str, _: int) -> Sequence[str]:
        """Return the addresses of a name; one that is no name is its own."""
        self.asked.append(host)
        answers = self.table.get(host, [[host]])
        return answers[min(self.asked.count(host), len(answers)) - 1]


@dataclass
class Fetching:
    """What fetches, and what was seen of it.

    Attributes:
        names: where hosts are looked up.
        faults: why images were not fetched.
    """

    names: Names
    faults: list[FetchFault] = field(default_factory=list)

    def fetcher(
        self,
        *listed: str,
        takes_any: bool = False,
        limits: FetchLimits = LIMITS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> ImageFetcher:
        """Return a fetcher for hosts on a list."""
        hosts = MediaHosts.parse(listed, takes_any=takes_any)
        return ImageFetcher(hosts, limits, self.faults.append, self.names.resolve, transport)


async def fetch(fetcher: ImageFetcher, *urls: str) -> list[bytes]:
    """Return the files at some URLs."""
    images = [RemoteImage(url, f"image {index}") for index, url in enumerate(urls)]
    async with fetcher.fetched(images, "somebody") as files:
        assert [file.param for file in files] == [image.param for image in images]
        return [file.content for file in files if isinstance(file, EncodedImage)]


def with_host(
    answers: Mapping[str, Answer],
    *paths: str,
    listed: Callable[[int], Sequence[str]] | None = None,
    limits: FetchLimits = LIMITS,
) -> tuple[list[bytes], PictureHost]:
    """Fetch paths of a local host; return what came, and the host.

    Args:
        answers: what it answers, by path.
        paths: what is fetched.
        listed: the list of hosts, given the port; the host's own address unless said otherwise.
        limits: of the fetcher.
    """

    async def run() -> tuple[list[bytes], PictureHost]:
        async with picture_host(answers) as host:
            entries = listed(host.port) if listed else [f"127.0.0.1:{host.port}"]
            fetcher = Fetching(Names()).fetcher(*entries, limits=limits)
            base = f"http://127.0.0.1:{host.port}"
            try:
                return await fetch(fetcher, *(base + path for path in paths)), host
            finally:
                await fetcher.close()

    return asyncio.run(run())
