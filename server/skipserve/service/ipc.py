"""What the API process and the engine process say to each other, as bytes. No pickle.

A frame is a length of four bytes, then a message as msgpack.
"""

import asyncio
import struct
from typing import BinaryIO

import msgspec

from skipserve.engine.limits import EngineSpec
from skipserve.service.messages import FromEngine, ToEngine

# A request with its images: 190 of them at 336 x 336 pixels.
MAX_FRAME_BYTES = 64 * 2**20

_HEADER = struct.Struct(">I")


class FrameError(Exception):
    """A frame over the limit, or one that is not a message."""


def pack(message: ToEngine | FromEngine) -> bytes:
    """Return a message as a frame.

    Raises:
        FrameError: it is over the limit.
    """
    body = msgspec.msgpack.encode(message)
    _check_size(len(body))
    return _HEADER.pack(len(body)) + body


def read_to_engine(stream: BinaryIO) -> ToEngine | None:
    """Return the next message to the engine; None once the other side has closed the socket.

    Raises:
        FrameError: what came is not a message.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    size = _body_size(header)
    body = stream.read(size)
    if len(body) < size:
        return None
    try:
        message: ToEngine = msgspec.msgpack.decode(body, type=ToEngine)
    except msgspec.DecodeError as error:
        raise FrameError(f"not a message to the engine: {error}") from error
    return message


async def read_from_engine(reader: asyncio.StreamReader) -> FromEngine | None:
    """Return the engine's next message; None once it has closed the socket.

    Raises:
        FrameError: what came is not a message.
    """
    try:
        body = await reader.readexactly(_body_size(await reader.readexactly(_HEADER.size)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    try:
        message: FromEngine = msgspec.msgpack.decode(body, type=FromEngine)
    except msgspec.DecodeError as error:
        raise FrameError(f"not a message from the engine: {error}") from error
    return message


def _body_size(header: bytes) -> int:
    (size,) = _HEADER.unpack(header)
    _check_size(size)
    return int(size)


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {num_bytes} bytes is over the limit of {MAX_FRAME_BYTES}")


def spec_to_json(spec: EngineSpec) -> str:
    """Return a spec as an argument for a command line."""
    return msgspec.json.encode(spec, enc_hook=str).decode()


def spec_from_json(text: str) -> EngineSpec:
    """Read what `spec_to_json` wrote."""
    return msgspec.json.decode(text, type=EngineSpec, dec_hook=lambda type_, value: type_(value))
