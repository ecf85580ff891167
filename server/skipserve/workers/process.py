"""Such a process as the server sees it: started, asked, ended."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from skipserve.logging_setup import relay_lines
from skipserve.workers.frames import HEADER, frame

# What a process is told of the server's environment: where Python is, and no secret.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TZ")


class WorkerGoneError(Exception):
    """The process has ended, or says what makes no sense."""


class WorkerProcess:
    """One process, and the socket to it.

    Args:
        module: what it runs, as `python -m MODULE FD ARGUMENT`, FD its end of the socket.
        argument: how it works.
        max_reply: bytes of a reply, at most.
        logs_json: whether what it prints is to be made JSON.
    """

    def __init__(self, module: str, argument: str, max_reply: int, *, logs_json: bool) -> None:
        self._max_reply = max_reply
        self._socket, theirs = socket.socketpair()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        with theirs:
            command = (sys.executable, "-m", module, str(theirs.fileno()), argument)
            self._process = _start_process(command, theirs, logs_json=logs_json)
        if self._process.stdout is not None:
            threading.Thread(target=relay_lines, args=(self._process.stdout,), daemon=True).start()

    @property
    def process_id(self) -> int:
        """As the system knows it."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    async def connect(self) -> None:
        """Take up the socket; once, before anything is asked."""
        self._streams = await asyncio.open_unix_connection(sock=self._socket, limit=self._max_reply)

    async def exchange(self, body: bytes) -> bytes:
        """Return the answer to a message.

        Raises:
            WorkerGoneError: it has ended, or says too much.
        """
        assert self._streams is not None
        reader, writer = self._streams
        try:
            writer.write(frame(body))
            await writer.drain()
            (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
            if size > self._max_reply:
                raise WorkerGoneError(f"a reply of {size} bytes")
            return await reader.readexactly(size)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise WorkerGoneError from error

    async def end(self) -> int:
        """Kill it unless it has ended; return its exit status when it is gone."""
        self._process.kill()
        if self._streams is None:
            self._socket.close()
        else:
            self._streams[1].transport.abort()
        return await asyncio.to_thread(self._process.wait)


def _start_process(
    command: Sequence[str], connection: socket.socket, *, logs_json: bool
) -> subprocess.Popen[bytes]:
    """Start a process that holds one end of a socket, which no other process can find."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        # Libraries print there, in C too: what is not JSON is made JSON on this side.
        stdout=subprocess.PIPE if logs_json else None,
        stderr=subprocess.STDOUT if logs_json else None,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        pass_fds=(connection.fileno(),),
        # A Ctrl-C at the terminal is for the parent, which then decides.
        start_new_session=True,
    )
