"""Inside such a process: how it lives, what it may take, what it reads. Imports nothing heavy."""

import ctypes
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from skipserve.workers.frames import HEADER

_PR_SET_PDEATHSIG = 1


def live_and_die_with_parent() -> None:
    """Leave it to the parent when to stop, and be killed with it, whatever runs; leave no core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A task that breaks it leaves no file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def limited(cpu_seconds: float, num_bytes: int) -> Iterator[None]:
    """Be killed after so much time on the CPU, and get no more than so much more memory."""
    limit_cpu(cpu_seconds)
    limit_memory(num_bytes)
    try:
        yield
    finally:
        limit_cpu(0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def limit_cpu(seconds: float) -> None:
    """Be killed by SIGPROF after so much time on the CPU from now on; 0 is never.

    RLIMIT_CPU counts from the process's start, and in whole seconds.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(num_bytes: int) -> None:
    """Get so much more memory at most; what is mapped now is not counted."""
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + num_bytes, resource.RLIM_INFINITY))


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the body of the next frame; None once the parent has closed the socket."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    body = stream.read(size)
    return body if len(body) == size else None
