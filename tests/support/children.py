"""Runs programs that are gone when they are no longer wanted, with all that they have started."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Command = Sequence[str | Path]


@contextlib.contextmanager
def running(command: Command, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a program while the context lasts; then it, its children and its pipes are gone."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a program that leads a group of its own, with the group; close its pipes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # What is still to be written to it goes nowhere.
    with contextlib.suppress(BrokenPipeError), process:
        pass


def run(command: Command, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; return what it wrote."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running(command, text=True, **pipes | options) as process:
        output, errors = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output, errors)
