"""Plays an application of Ray Serve in this process, with real engines: no cluster, no router."""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn
from ray import serve
from ray.serve.handle import DeploymentHandle

from skipserve.ray.deployments import Engine, Ingress, Ledger
from skipserve.ray.options import Options


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Front(Ingress):
    """An ingress that listens itself, in the place of Serve's proxy."""

    def __init__(
        self, options: Options, engines: DeploymentHandle[Any], ledger: DeploymentHandle[Any]
    ) -> None:
        super().__init__(options, engines, ledger)
        self._engines = engines
        self._listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(self._switch, log_config=None, access_log=False)
        self._server = _QuietServer(config)

    async def open(self) -> str:
        """Begin to listen; return where."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    async def close(self) -> None:
        """Stop, and the engine too."""
        self._server.should_exit = True
        await self._serving
        await self._engines.close.remote()


class PlayedApplication:
    """An application while the context lasts.

    Attributes:
        url: where it listens.
        front: the way to its ingress.

    Args:
        options: how it runs; one engine, whatever they say.
    """

    def __init__(self, options: Options) -> None:
        ledger = serve.deployment(name="Ledger")(Ledger).bind()
        engines = serve.deployment(name="Engine")(Engine).bind(options, ledger)
        front = serve.deployment(name="Front")(Front).bind(options, engines, ledger)
        self.front: DeploymentHandle[Any] = serve.run(front, _local_testing_mode=True)
        self.url: str = self.front.open.remote().result()

    def __enter__(self) -> "PlayedApplication":
        return self

    def __exit__(self, *_: object) -> None:
        self.front.close.remote().result()
