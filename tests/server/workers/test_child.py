"""Tests of what a process of ours does to itself; the pools show it at work."""

import io
import signal
import subprocess
import sys

import pytest

from skipserve.workers.child import read_frame
from skipserve.workers.frames import frame

pytestmark = pytest.mark.fast


def status_of(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_frames_are_read_one_by_one() -> None:
    stream = io.BytesIO(frame(b"one") + frame(b"") + frame(b"cut off")[:-1])
    assert [read_frame(stream) for _ in range(3)] == [b"one", b"", None]
    assert read_frame(io.BytesIO(b"\0")) is None


def test_time_on_the_cpu_is_limited() -> None:
    code = (
        "from skipserve.workers.child import limited\nwith limited(0.05, 2**30):\n  while 1: pass"
    )
    assert status_of(code) == -signal.SIGPROF


def test_memory_is_limited_while_the_context_lasts() -> None:
    code = (
        "from skipserve.workers.child import limited\n"
        "with limited(60, 2**20):\n"
        "  try: bytearray(2**28)\n"
        "  except MemoryError: print('none')\n"
        "  else: raise SystemExit(1)\n"
        "bytearray(2**28)"
    )
    assert status_of(code) == 0
