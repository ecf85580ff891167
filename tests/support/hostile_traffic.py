"""One hostile client after the other, each chosen by a seed: what a server meets in a bad hour."""

import contextlib
import random
import socket
from collections.abc import Callable
from typing import Any

import httpx
from hostile_bodies import CHAT, HOSTILE_BODIES, JSON
from hostile_pictures import exif_of_many_faults, flat_png, repeated_scans, webp_canvas
from pictures import data_uri, encode, question, random_picture
from raw_client import connect, post_head, post_whole

_BODY_BYTES = 2**18
_PATIENCE_SECONDS = 30.0
_PICTURES: tuple[tuple[Callable[[], bytes], str], ...] = (
    (lambda: repeated_scans(1000, 80), "image/jpeg"),
    (lambda: repeated_scans(1000, 2000), "image/jpeg"),
    (lambda: flat_png(1, 10_000_000), "image/png"),
    (lambda: flat_png(2000, 2000, 6), "image/png"),
    (lambda: webp_canvas(4000), "image/webp"),
    (lambda: exif_of_many_faults(2000), "image/png"),
)
# Does one hostile thing to the server at a URL.
Deed = Callable[[str, random.Random], None]


def _post(url: str, **content: Any) -> None:
    with httpx.Client(base_url=url, timeout=_PATIENCE_SECONDS, trust_env=False) as client:
        reply = client.post(CHAT, **content)
    if reply.status_code >= 500 and reply.status_code != 503:
        raise AssertionError(f"a hostile request was answered with {reply.status_code}")


def send_body(url: str, chance: random.Random) -> None:
    """Send a body of one fault, repeated."""
    name = chance.choice(list(HOSTILE_BODIES))
    _post(url, content=HOSTILE_BODIES[name](_BODY_BYTES), headers=JSON)


def send_picture(url: str, chance: random.Random) -> None:
    """Send a picture that costs more than it weighs."""
    content, media_type = chance.choice(_PICTURES)
    _post(url, json=question("Hi", data_uri(content(), media_type), timeout_seconds=2))


def send_mutated_picture(url: str, chance: random.Random) -> None:
    """Send a picture some of whose bytes are others."""
    file_format = chance.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP"])
    content = bytearray(encode(random_picture(60, 50, seed=chance.randrange(8)), file_format))
    for _ in range(chance.randrange(1, 20)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    del content[chance.randrange(len(content) // 2, len(content)) :]
    _post(url, json=question("Hi", data_uri(bytes(content), f"image/{file_format.lower()}")))


def hang_up(url: str, chance: random.Random) -> None:
    """Begin a stream, read some of it, and go."""
    with connect(url) as connection:
        body = question("Hi", stream=True, max_tokens=chance.randrange(1, 100))
        connection.sendall(post_whole(CHAT, body))
        connection.recv(1 + chance.randrange(400))


def leave_unread(url: str, chance: random.Random) -> None:
    """Ask for a long stream, and read none of it for a while."""
    with connect(url, receive_bytes=2048) as connection:
        body = question("Hi", stream=True, logprobs=True, top_logprobs=20, max_tokens=60)
        connection.sendall(post_whole(CHAT, body))
        connection.settimeout(chance.random())
        with contextlib.suppress(TimeoutError):
            connection.recv(1)


def send_half(url: str, chance: random.Random) -> None:
    """Begin a head, or a body, and let it be."""
    head = post_head(CHAT, "Content-Length: 100000") + b'{"messages": "data:image' + b"A" * 5000
    with connect(url) as connection:
        connection.sendall(head[: chance.randrange(1, len(head))])
        connection.settimeout(chance.random())
        with contextlib.suppress(TimeoutError):
            connection.recv(1)


def send_noise(url: str, chance: random.Random) -> None:
    """Send what is no HTTP, or a body in crumbs."""
    noise = chance.randbytes(200) + b"\r\n\r\n"
    crumbs = post_head(CHAT, "Transfer-Encoding: chunked") + b"1\r\n \r\n" * 400
    with connect(url) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(chance.choice([noise, crumbs]))
        connection.settimeout(_PATIENCE_SECONDS)
        connection.recv(2**12)


def pipeline(url: str, chance: random.Random) -> None:
    """Send many requests at once, and read the first replies only."""
    request = post_whole(CHAT, question("Hi", max_tokens=chance.randrange(1, 4)))
    with connect(url) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request * 10)
        connection.recv(chance.randrange(1, 4000))


DEEDS: tuple[Deed, ...] = (
    send_body,
    send_picture,
    send_mutated_picture,
    hang_up,
    leave_unread,
    send_half,
    send_noise,
    pipeline,
)


def do_one(url: str, chance: random.Random) -> str:
    """Do one hostile thing; return its name."""
    deed = chance.choice(DEEDS)
    # Whoever is hostile is cut off now and then.
    with contextlib.suppress(ConnectionError, socket.timeout, httpx.TransportError):
        deed(url, chance)
    return deed.__name__
