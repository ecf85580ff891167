"""The process in which media are decoded: it may be killed at any time. Imports nothing heavy.

Started by `skipserve.media.pool` as `python -m skipserve.media.worker FD SPEC`, FD an inherited
socket and SPEC a WorkerSpec as JSON. It lives as long as its parent holds the socket.
"""

import ctypes
import socket
import sys
import warnings
from typing import BinaryIO

from skipserve.errors import UnusableImageError
from skipserve.logging_setup import set_up_logging
from skipserve.media.data_uri import NOUNS, EncodedImage
from skipserve.media.messages import (
    Decode,
    Fitted,
    FromWorker,
    Grant,
    Refused,
    ToWorker,
    Want,
    WorkerSpec,
    pack,
    spec_from_json,
    to_worker,
)
from skipserve.workers.child import (
    limit_cpu,
    limit_memory,
    limited,
    live_and_die_with_parent,
    read_frame,
)
from skipserve.workers.frames import frame

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MIB = 2**20

# What a picture may take besides: the files' own buffers, and the stack of a decoder's thread.
_SPARE_BYTES = 24 * _MIB


def main() -> int:
    """Run the process; return its exit status."""
    live_and_die_with_parent()
    _return_freed_memory()
    spec = spec_from_json(sys.argv[2])
    set_up_logging(as_json=spec.logs_json)
    # Python would remember each that differs, and pictures make any number of them.
    warnings.simplefilter("always", UserWarning)
    spec.kind.warm_up()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        # A picture leaves in one piece: each further one would wait for its turn on the CPU.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MIB)
        Worker(spec, connection).run()
    return 0


class Worker:
    """Decodes one picture after the other.

    Args:
        spec: how.
        connection: to the parent.
    """

    def __init__(self, spec: WorkerSpec, connection: socket.socket) -> None:
        self._spec = spec
        self._connection = connection
        self._stream: BinaryIO = connection.makefile("rb")
        self._granted_bytes = spec.granted_bytes

    def run(self) -> None:
        """Answer until the parent closes the socket."""
        while self._answer_next():
            pass

    def _answer_next(self) -> bool:
        """Answer a message; False once there is none. What it held is gone before the next."""
        message = self._read()
        if isinstance(message, Decode):
            self._send(self._answer(message))
        return message is not None

    def _answer(self, task: Decode) -> FromWorker:
        file = EncodedImage(task.content, "", task.frames)
        kind = self._spec.kind
        self._granted_bytes = self._spec.granted_bytes
        try:
            with limited(self._spec.cpu_seconds, self._granted_bytes + _SPARE_BYTES):
                made = kind.make(file, task.max_pixels, self._before_load)
                return Fitted(made.content, made.num_decoded, made.fit_seconds)
        except UnusableImageError as error:
            return Refused(error.message)
        except MemoryError:
            noun = NOUNS[kind.modality]
            return Refused(f"the {noun} takes more memory to fit than one of its size may")

    def _before_load(self, num_held: int, num_decoded: int) -> None:
        """Take what so many pixels need that are held at a time, and so many that are decoded.

        Raises:
            UnusableImageError: the file said another size before.
        """
        num_bytes = num_held * self._spec.bytes_per_pixel
        if num_bytes > self._granted_bytes:
            if self._granted_bytes > self._spec.granted_bytes:
                raise UnusableImageError("the image says two sizes of itself")
            self._ask_for(num_bytes)
        limit_cpu(self._spec.cpu_seconds + num_decoded * self._spec.cpu_seconds_per_pixel)

    def _ask_for(self, num_bytes: int) -> None:
        """Wait until there is so much memory, and no longer than anybody waits for the picture."""
        self._send(Want(num_bytes))
        if not isinstance(self._read(), Grant):
            sys.exit(0)
        self._granted_bytes = num_bytes
        limit_memory(num_bytes + _SPARE_BYTES)

    def _send(self, message: FromWorker) -> None:
        self._connection.sendall(frame(pack(message)))

    def _read(self) -> ToWorker | None:
        """Return the next message; None once the parent has closed the socket."""
        body = read_frame(self._stream)
        return None if body is None else to_worker(body)


def _return_freed_memory() -> None:
    """Give large blocks back to the system as soon as they are freed, and map no spare arenas."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 4 * _MIB)
        # What small pictures free is kept for the next: their pages would come back one by one.
        mallopt(_M_TRIM_THRESHOLD, 16 * _MIB)
        mallopt(_M_ARENA_MAX, 1)


if __name__ == "__main__":
    sys.exit(main())
