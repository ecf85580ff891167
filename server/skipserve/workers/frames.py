"""What goes over the socket to such a process: a length of four bytes, then a body."""

import struct

HEADER = struct.Struct(">I")


def frame(body: bytes) -> bytes:
    """Return a body as a frame."""
    return HEADER.pack(len(body)) + body
