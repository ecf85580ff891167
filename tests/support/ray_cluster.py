"""A cluster of Ray's on this machine, in a network of its own, and what runs in it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from network_of_ones_own import network_of_ones_own

URL = "http://127.0.0.1:8000"
_BIN = Path(sys.executable).parent
_ENGINE = "ServeReplica:skipserve:Engine"
_INGRESS = "ServeReplica:skipserve:Ingress"
_PROCESS = "skipserve.service.process"


class Cluster:
    """A cluster while the context lasts.

    Args:
        folder: where Ray writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Ray's sockets have long names.
        self._environment = os.environ | {
            "RAY_TMPDIR": str(folder),
            "HOME": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "RAY_ADDRESS": "127.0.0.1:6379",
        }

    def start(self) -> None:
        """Start a head without workers beside it."""
        self.run(
            "ray", "start", "--head", "--port=6379", "--num-cpus=8", "--include-dashboard=false",
            "--node-ip-address=127.0.0.1", f"--temp-dir={self._folder}/r",
        )  # fmt: skip

    def stop(self) -> None:
        """End all processes of the cluster; no others are in its network."""
        for pid in self._pids(lambda _: True):
            os.kill(pid, signal.SIGKILL)

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Deploy a Serve config, or change what is deployed."""
        path = self._folder / "serve.yaml"
        path.write_text(yaml.safe_dump(dict(config)))
        self.run("serve", "run", "--non-blocking", str(path))

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of the virtual environment."""
        done = subprocess.run(
            [_BIN / program, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start_program(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program of the virtual environment, with a cluster of its own."""
        environment = {**self._environment}
        del environment["RAY_ADDRESS"]
        with (self._folder / "log").open("w") as log:
            return subprocess.Popen([_BIN / program, *arguments], env=environment, stdout=log)

    @property
    def engines(self) -> list[int]:
        """The processes of replicas with engines."""
        return self._pids(lambda line: _ENGINE in line)

    @property
    def engine_processes(self) -> list[int]:
        """The engines' own processes, in the order of their replicas'."""
        of = {_parent(pid): pid for pid in self._pids(lambda line: _PROCESS in line)}
        return [of[replica] for replica in self.engines if replica in of]

    @property
    def ingresses(self) -> list[int]:
        """The processes of ingresses."""
        return self._pids(lambda line: _INGRESS in line)

    def _pids(self, wanted: Callable[[str], bool]) -> list[int]:
        """Return the processes in this network whose command lines are wanted, but for our own."""
        network = os.readlink("/proc/thread-self/ns/net")
        return [pid for pid in _others() if _network(pid) == network and wanted(_line(pid))]


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster while the context lasts; skip the test unless TEST_REQUIRES=ray-cluster."""
    if "ray-cluster" not in os.environ.get("TEST_REQUIRES", "").split():
        pytest.skip("a cluster takes minutes: make test-ray runs it")
    with network_of_ones_own():
        running = Cluster(folder)
        try:
            yield running
        finally:
            running.stop()


def wait_until(is_so: Callable[[], bool], seconds: float = 180.0) -> None:
    """Return when something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.2)


def is_ready() -> bool:
    """Whether the application takes requests."""
    try:
        return httpx.get(f"{URL}/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _others() -> list[int]:
    return [int(it) for it in os.listdir("/proc") if it.isdecimal() and int(it) != os.getpid()]


def _network(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
