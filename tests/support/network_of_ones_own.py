"""A network namespace with nothing but loopback, for programs that listen on every interface."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_NEW_NETWORK = 0x40000000


@contextmanager
def network_of_ones_own() -> Iterator[None]:
    """Let this thread, and what it starts, be in a network of its own while the context lasts."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.fail("a network namespace wants root and the program ip")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _check(libc.unshare(_NEW_NETWORK))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        _check(libc.setns(before, _NEW_NETWORK))
        os.close(before)


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
