"""Runs the whole server, engine process and all, on a free loopback port in a thread."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Generator

import httpx
import uvicorn

from skipserve.api.protocol import web_server_config
from skipserve.app import build
from skipserve.errors import EngineError
from skipserve.settings import Settings


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


# What its thread is called, so that what it logs can be told from what a test does.
THREAD_NAME = "live server"


class LiveServer:
    """A server that answers while the context lasts.

    Attributes:
        built: the application and its parts.
        url: where it listens.
    """

    def __init__(self, settings: Settings) -> None:
        self.built = build(settings)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        config = web_server_config(self.built.app, self.built.connections)
        self._server = _QuietServer(config)
        self._has_started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=THREAD_NAME)

    def __enter__(self) -> "LiveServer":
        self._thread.start()
        try:
            self._has_started.wait()
            # No assert: the security tests run under -O too.
            if self.built.serving.service.why_not_ready is not None:
                raise RuntimeError("the engine did not load")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def client(self) -> httpx.Client:
        """Return a client of this server."""
        return httpx.Client(base_url=self.url, timeout=None, trust_env=False)

    async def _run(self) -> None:
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        try:
            while not (self._server.started or serving.done()):
                await asyncio.sleep(0.02)
            if self._server.started:
                with contextlib.suppress(EngineError):
                    await self.built.serving.service.wait_ready()
        finally:
            self._has_started.set()
        await serving
