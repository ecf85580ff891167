"""What the server and its decoding processes say to each other, as msgpack. No pickle.

What comes from such a process is not trusted: a picture may have taken it over.
"""

import msgspec

from skipserve.media.kinds import MediaKind


class WorkerSpec(msgspec.Struct, frozen=True):
    """How a process decodes.

    Attributes:
        kind: what it makes of each file.
        bytes_per_pixel: memory that a picture needs.
        granted_bytes: it may take so much without asking.
        cpu_seconds: CPU time of each picture, whatever its size.
        cpu_seconds_per_pixel: what comes to that.
        logs_json: whether it writes log lines as JSON.
    """

    kind: MediaKind
    bytes_per_pixel: int
    granted_bytes: int
    cpu_seconds: float
    cpu_seconds_per_pixel: float
    logs_json: bool = False


class Decode(msgspec.Struct, frozen=True, tag="decode"):
    """To a worker: decode and fit this file.

    Attributes:
        content: its bytes.
        max_pixels: that it may have.
        frames: the files of a video's frames, where it came as pictures.
    """

    content: bytes
    max_pixels: int
    frames: tuple[bytes, ...] = ()


class Grant(msgspec.Struct, frozen=True, tag="grant"):
    """To a worker: take the memory that was asked for."""


class Want(msgspec.Struct, frozen=True, tag="want"):
    """From a worker: the picture needs so much memory; it waits for a `Grant`."""

    num_bytes: int


class Fitted(msgspec.Struct, frozen=True, tag="fitted"):
    """From a worker: what a file became.

    Attributes:
        pixels: as `Made.content` has it.
        num_decoded: pixels that were decoded, or samples of a sound.
        fit_seconds: time spent on fitting them.
    """

    pixels: bytes
    num_decoded: int
    fit_seconds: float


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """From a worker: the picture cannot be used, and why, in words for the client."""

    message: str


ToWorker = Decode | Grant
FromWorker = Want | Fitted | Refused


def pack(message: ToWorker | FromWorker) -> bytes:
    """Return a message as a frame's body."""
    return msgspec.msgpack.encode(message)


def to_worker(body: bytes) -> ToWorker:
    """Read a frame's body; raises `msgspec.DecodeError` where it is no message."""
    message: ToWorker = msgspec.msgpack.decode(body, type=ToWorker)
    return message


def from_worker(body: bytes) -> FromWorker:
    """Read a frame's body; raises `msgspec.DecodeError` where it is no message."""
    message: FromWorker = msgspec.msgpack.decode(body, type=FromWorker)
    return message


def spec_to_json(spec: WorkerSpec) -> str:
    """Return a spec as an argument for a command line."""
    return msgspec.json.encode(spec).decode()


def spec_from_json(text: str) -> WorkerSpec:
    """Read what `spec_to_json` wrote."""
    return msgspec.json.decode(text, type=WorkerSpec)
