"""Runs `skipserve serve` as a user does: as a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import children
import httpx


class ServerProcess:
    """A server process on a free port; ready when the context is entered.

    What it prints is read all the time: it never waits for a pipe that is full.

    Attributes:
        url: where it listens.
        output: what it has printed so far.
        python: the interpreter that runs it.
    """

    python = sys.executable

    def __init__(self, model: Path | str, *flags: str, **environment: str) -> None:
        command = [self.python, "-m", "skipserve_client", "serve", "--model", str(model)]
        self._command = [*command, "--port", "0", "--num-threads", "1", *flags]
        self._environment = os.environ | {"PYTHONUNBUFFERED": "1"} | environment
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.output = ""
        self.url = ""

    def __enter__(self) -> "ServerProcess":
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader.start()
        try:
            self.url = self._read_url()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The engine, which writes there too, ends with its server: then all has been read.
        self._process.kill()
        self._reader.join()
        children.end(self._process)

    def _read_url(self) -> str:
        while line := self._lines.get():
            if found := re.search(r'serves .* on (http://[^\s"]+)', line):
                return found.group(1)
        raise AssertionError(f"the server ended before it was ready: {self.output}")

    @property
    def process_id(self) -> int:
        """The process id of the server, which is not the engine's."""
        return self._process.pid

    @property
    def engine_id(self) -> int:
        """The process id of the engine."""
        [process_id] = self.child_ids("skipserve.service.process")
        return process_id

    @property
    def decoder_ids(self) -> list[int]:
        """The process ids of those that decode pictures."""
        return self.child_ids("skipserve.media.worker")

    def child_ids(self, module: str) -> list[int]:
        """Return the process ids of the server's children that run a module."""
        listing = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self._process.pid)],
            capture_output=True,
            text=True,
            check=False,  # ps fails where there is none
        )
        return [int(line.split()[0]) for line in listing.stdout.splitlines() if module in line]

    def client(self) -> httpx.Client:
        """Return a client of this server."""
        return httpx.Client(base_url=self.url, timeout=None, trust_env=False)

    def read_line(self) -> str:
        """Return the next line that it prints."""
        line = self._lines.get()
        assert line, "the server has ended"
        return line

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        self._process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """Return the exit code and all that was printed, once the process has ended."""
        code = self._process.wait()
        # The engine writes there too; it ends with its server.
        self._reader.join()
        return code, self.output

    def _read(self) -> None:
        """Take what is printed, line by line; an empty one says that it was the last."""
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self.output += line
                self._lines.put(line)
        self._lines.put("")


def is_running(process_id: int) -> bool:
    """Return whether a process exists and is not a mere entry of the process table.

    One whose first thread is gone may have others that are still ending: until then its files
    are open, and its parent is not told.
    """
    folder = Path(f"/proc/{process_id}")
    with contextlib.suppress(OSError):
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list((folder / "task").iterdir())) > 1
    return False
