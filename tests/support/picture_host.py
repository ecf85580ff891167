"""A host of pictures that answers byte by byte what a test wants, in the test's own event loop."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class PictureHost:
    """What a host was asked.

    Attributes:
        port: where it listens, on each address of 127.0.0.0/8.
        heads: the requests' heads.
        has_lost: is set when a client has left before its answer was whole.
    """

    port: int = 0
    heads: list[str] = field(default_factory=list)
    has_lost: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def paths(self) -> list[str]:
        """What was asked for."""
        return [head.split(" ")[1] for head in self.heads]


def answer(
    body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = None
) -> bytes:
    """Return an answer; `length` is what it says of itself."""
    size = len(body) if length is None else length
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    """Return an answer that leads on."""
    return answer(b"", f"Location: {location}", status=f"{status} Elsewhere")


async def drip(writer: asyncio.StreamWriter) -> None:
    """Answer for ever, in crumbs, and say of no length."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.005)


async def flood(writer: asyncio.StreamWriter) -> None:
    """Answer for ever, as fast as it is read."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


@asynccontextmanager
async def picture_host(answers: Mapping[str, Answer]) -> AsyncGenerator[PictureHost, None]:
    """Answer by path while the context lasts."""
    host = PictureHost()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            host.heads.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
            wanted = answers[host.paths[-1]]
            if isinstance(wanted, bytes):
                writer.write(wanted)
                await writer.drain()
            else:
                await wanted(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            host.has_lost.set()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 0)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
