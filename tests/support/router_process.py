"""Runs a router in front of a server, on free loopback ports, until it passes requests on."""

import contextlib
import socket
import subprocess
import time

import httpx
import programs
from children import running
from patience import Patience

_WAIT_SECONDS = 60
_POLL_SECONDS = 0.1
# What comes before the flags, which all take.
_SUBCOMMANDS = {"sglang-router": ("launch",), "vllm-router": ()}


def find_router(name: str) -> str:
    """Return where a router is; do without the test where it is nowhere."""
    return programs.find(name, "make test-routers installs it")


class RouterProcess:
    """A router that runs while the context lasts.

    Attributes:
        name: of the program.
        url: where it listens.

    Args:
        name: as above.
        worker: where the server is that it passes requests on to.
    """

    def __init__(self, name: str, worker: str) -> None:
        self.name = name
        port, metrics_port = _free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            *(find_router(name), *_SUBCOMMANDS[name], "--worker-urls", worker),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--prometheus-port", str(metrics_port), "--policy", "round_robin"),
        ]

    def __enter__(self) -> "RouterProcess":
        with contextlib.ExitStack() as stack:
            output = subprocess.DEVNULL
            process = stack.enter_context(running(self._command, stdout=output, stderr=output))
            self._wait_until_ready(process)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self, **headers: str) -> httpx.Client:
        """Return a client that asks through the router."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=None, trust_env=False)

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        patience = Patience(_WAIT_SECONDS)
        with self.client() as client:
            while not self._is_ready(client):
                assert process.poll() is None, f"{self.name} has ended"
                assert not patience.is_over, f"{self.name} is not ready"
                time.sleep(_POLL_SECONDS)

    @staticmethod
    def _is_ready(client: httpx.Client) -> bool:
        # Its own health is that of its workers.
        with contextlib.suppress(httpx.TransportError):
            return client.get("/health").is_success and client.get("/readiness").is_success
        return False


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
