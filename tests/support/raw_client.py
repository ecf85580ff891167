"""Connections that speak as much HTTP as they are told to."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit


def connect(url: str, *, receive_bytes: int | None = None, address: str = "") -> socket.socket:
    """Return a connection to a server.

    Args:
        url: the server's.
        receive_bytes: how much the kernel takes in before it is read; None for its default.
        address: of this end; one of 127.0.0.0/8.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    if address:
        connection.bind((address, 0))
    connection.connect((parts.hostname, parts.port))
    return connection


def post_head(path: str, *headers: str) -> bytes:
    """Return the head of a request with a JSON body."""
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def post_whole(path: str, body: Any) -> bytes:
    """Return a request."""
    content = json.dumps(body).encode()
    return post_head(path, f"Content-Length: {len(content)}") + content


def read_all(connection: socket.socket) -> bytes:
    """Return what a server says until it ends the connection."""
    content = b""
    while part := connection.recv(2**16):
        content += part
    return content


def error_of(reply: bytes) -> dict[str, Any]:
    """Return the error in a reply, which has the one form and an id."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"\r\nx-request-id: req-" in head.lower(), head
    assert b"\r\ncontent-type: application/json" in head.lower(), head
    error: dict[str, Any] = json.loads(body)["error"]
    assert head.split(b" ")[1] == str(error["code"]).encode()
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def read_reply(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of one reply, which says its length; what follows is left."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        assert part, head
        head += part
    num_bytes = int(head.lower().partition(b"\r\ncontent-length:")[2].split()[0])
    body = b""
    while len(body) < num_bytes:
        part = connection.recv(num_bytes - len(body))
        assert part, head + body
        body += part
    return head, body
