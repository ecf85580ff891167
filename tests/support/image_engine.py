"""Builds and runs the image: with Docker, or with buildah and podman on a base made here."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from children import running

ROOT = Path(__file__).parents[2]
BASE = "localhost/skipserve-base:bookworm"
_MIRROR = "http://deb.debian.org/debian"
_BASE_PACKAGES = "ca-certificates,python3,python3-pip"
_CERTIFICATES = Path("/etc/ssl/certs")
_PIP_KEYS = ("find-links", "index-url")
_PODMAN_PROGRAMS = ("buildah", "podman", "runc", "debootstrap")
_MAX_WORDS = 2000
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
# The limits are smaller than podman's own, which only a fully privileged user may set.
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
"""


class MissingEngineError(Exception):
    """Nothing on this machine builds and runs images; the message says what is missing."""


@dataclass(frozen=True)
class Engine:
    """What builds images and runs containers.

    Attributes:
        program: its name; docker and podman take the same commands.
        build_command: what builds a Dockerfile, up to the target's name.
        environment: variables that every call gets.
    """

    program: str
    build_command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def build(self, target: str) -> str:
        """Build a target of docker/Dockerfile; return the image's name."""
        image = f"localhost/skipserve-test:{target}"
        options = ("--target", target, "--file", "docker/Dockerfile", "--tag", image, ".")
        self.run(*self.build_command, *options)
        return image

    def call(self, *arguments: str) -> str:
        """Run one command of the engine; return what it printed."""
        return self.run(self.program, *arguments)

    def start(self, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """Run one command of the engine while a context lasts, its output in one pipe."""
        return running(
            (self.program, *arguments),
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def has_image(self, name: str) -> bool:
        """Return whether an image is at hand."""
        command = (self.program, "image", "inspect", name)
        return _succeeds(*command, environment=self.environment)

    def run(self, *command: str) -> str:
        """Run a program that works with this engine; return what it printed."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            words = done.stdout[-_MAX_WORDS:] + done.stderr[-_MAX_WORDS:]
            raise RuntimeError(f"{' '.join(command)} failed: {words}")
        return done.stdout


def find_engine() -> Engine:
    """Return what this machine has.

    Raises:
        MissingEngineError: it has neither Docker nor what takes its place.
    """
    if shutil.which("docker") and _succeeds("docker", "info"):
        return Engine("docker", ("docker", "build"))
    missing = [name for name in _PODMAN_PROGRAMS if shutil.which(name) is None]
    if missing:
        raise MissingEngineError(f"there is no Docker engine, and no {', '.join(missing)} either")
    if os.geteuid() != 0:
        raise MissingEngineError("there is no Docker engine, and debootstrap must be run by root")
    return _podman()


def _podman() -> Engine:
    """Return podman with a store of its own, which is kept and holds the base image."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "skipserve-images")
    folder.mkdir(parents=True, exist_ok=True)
    storage, containers = folder / "storage.conf", folder / "containers.conf"
    storage.write_text(_STORAGE.format(folder=folder))
    containers.write_text(_CONTAINERS)
    build = ("buildah", "bud", "--format", "docker", "--layers", "--isolation", "chroot")
    indexes = ("--build-arg", f"BASE={BASE}", "--build-arg", "TORCH_INDEX=https://pypi.org/simple")
    engine = Engine(
        "podman",
        (*build, "--pull-never", *indexes, *_volumes(folder)),
        {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(containers)},
    )
    if not engine.has_image(BASE):
        _make_base(engine)
    return engine


def _make_base(engine: Engine) -> None:
    """Make an image like Docker's python:3.11-slim of Debian's packages."""
    with tempfile.TemporaryDirectory() as parent:
        folder, archive = f"{parent}/root", f"{parent}/root.tar"
        include = f"--include={_BASE_PACKAGES}"
        engine.run("debootstrap", "--variant=minbase", include, "bookworm", folder, _MIRROR)
        Path(folder, "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for marker in Path(folder, "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        shutil.rmtree(Path(folder, "var/cache/apt"))
        engine.run("tar", "--create", "--file", archive, "--directory", folder, ".")
        engine.call("import", archive, BASE)


def _volumes(folder: Path) -> list[str]:
    """Return the mounts that let pip in a build find what pip finds here."""
    settings, mounts = [], [(_CERTIFICATES, _CERTIFICATES)]
    for line in _pip_settings():
        key, _, value = line.partition("=")
        name, value = key.rpartition(".")[2], value.strip("'\"")
        if name in _PIP_KEYS and f"{name} = {value}" not in settings:
            settings.append(f"{name} = {value}")
            mounts += [(path, path) for path in map(Path, value.split()) if path.is_dir()]
    configuration = folder / "pip.conf"
    configuration.write_text("\n".join(["[global]", *settings, ""]))
    mounts.append((configuration, Path("/etc/pip.conf")))
    return [f"--volume={source}:{target}:ro" for source, target in mounts]


def _pip_settings() -> list[str]:
    command = (sys.executable, "-m", "pip", "config", "list")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _succeeds(*command: str, environment: Mapping[str, str] | None = None) -> bool:
    variables = os.environ | (environment or {})
    return not subprocess.run(command, env=variables, capture_output=True, check=False).returncode


class Container:
    """A server in a container that runs until the context ends, hardened as compose.yaml does it.

    Attributes:
        url: where it answers.
        output: what it has printed until it was ready.
    """

    def __init__(self, engine: Engine, image: str, **environment: str) -> None:
        options = ["--detach", "--read-only", "--tmpfs", "/tmp", "--publish", "127.0.0.1::8000"]
        options += [
            "--cap-drop",
            "all",
            "--security-opt",
            "no-new-privileges",
            "--stop-timeout",
            "40",
        ]
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        self._command = ("run", *options, *variables, image)
        self._engine = engine
        self.output = ""
        self.url = ""

    def __enter__(self) -> "Container":
        self._id = self._engine.call(*self._command).strip()
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.call("rm", "--force", self._id)

    def _wait_until_ready(self) -> None:
        address = self._engine.call("port", self._id, "8000").split()[-1]
        self.url = f"http://{address}"
        with self._engine.start("logs", "--follow", self._id) as log:
            assert log.stdout is not None
            for line in log.stdout:
                self.output += line
                if " serves " in line:
                    return
        raise AssertionError(f"the server ended before it was ready: {self.output}")

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Run a command inside; return its exit code and what it printed."""
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        with self._engine.start("exec", *variables, self._id, *command) as process:
            output, _ = process.communicate()
            return process.returncode, output

    def begin_to_stop(self) -> AbstractContextManager[subprocess.Popen[str]]:
        """Send the stop signal, and SIGKILL once the stop timeout is over."""
        return self._engine.start("stop", self._id)

    @property
    def exit_code(self) -> int:
        """The exit code, once it has stopped."""
        return int(self._engine.call("wait", self._id))

    @property
    def health_check(self) -> list[str]:
        """The command of the image's health check."""
        check = self._engine.call(
            "inspect", "--format", "{{json .Config.Healthcheck.Test}}", self._id
        )
        kind, *command = json.loads(check)
        assert kind == "CMD"
        return list(command)
