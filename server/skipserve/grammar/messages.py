"""What the server and its compiling processes say to each other, as msgpack. No pickle."""

from pathlib import Path

import msgspec

from skipserve.grammar.structure import Shape


class CompilerSpec(msgspec.Struct, frozen=True):
    """How a process compiles.

    Attributes:
        model: the folder of the model, whose tokens it needs.
        cpu_seconds: CPU time of each grammar.
        memory_bytes: memory that each may take.
        logs_json: whether it writes log lines as JSON.
    """

    model: Path
    cpu_seconds: float
    memory_bytes: int
    logs_json: bool = False


class Compile(msgspec.Struct, frozen=True, tag="compile"):
    """To a process: try this."""

    shape: Shape


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """From a process: the grammar, which an engine can compile in the same time and memory."""

    grammar: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """From a process: there is none, and why, in words for the client.

    Attributes:
        message: why.
        param: the field at fault, where it is not the one that holds the whole shape.
    """

    message: str
    param: str | None = None


Reply = Compiled | Refused


def pack(message: Compile | Reply) -> bytes:
    """Return a message as a frame's body."""
    return msgspec.msgpack.encode(message)


def to_compiler(body: bytes) -> Compile:
    """Read a frame's body; raises `msgspec.DecodeError` where it is no message."""
    return msgspec.msgpack.decode(body, type=Compile)


def from_compiler(body: bytes) -> Reply:
    """Read a frame's body; raises `msgspec.DecodeError` where it is no message."""
    message: Reply = msgspec.msgpack.decode(body, type=Reply)
    return message


def spec_to_json(spec: CompilerSpec) -> str:
    """Return a spec as an argument for a command line."""
    return msgspec.json.encode(spec, enc_hook=str).decode()


def spec_from_json(text: str) -> CompilerSpec:
    """Read what `spec_to_json` wrote."""
    return msgspec.json.decode(text, type=CompilerSpec, dec_hook=lambda kind, value: kind(value))
