"""Runs the whole server, engine process and all, on a free loopback port in a thread."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Generator

import httpx
import uvicorn

from skipserve.app import build
from skipserve.settings import Settings

_START_SECONDS = 120


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


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
        config = uvicorn.Config(
            self.built.app,
            http="h11",
            ws="none",
            log_config=None,
            h11_max_incomplete_event_size=32768,
        )
        self._server = _QuietServer(config)
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "LiveServer":
        self._thread.start()
        # No assert: the security tests run under -O too.
        if not self._is_ready.wait(_START_SECONDS):
            raise TimeoutError("the engine did not load")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def client(self) -> httpx.Client:
        """Return a client of this server."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    async def _run(self) -> None:
        watch = asyncio.create_task(self._watch())
        await self._server.serve(sockets=[self._listener])
        await watch

    async def _watch(self) -> None:
        while not self.built.serving.service.is_ready and not self._server.should_exit:
            await asyncio.sleep(0.02)
        self._is_ready.set()
