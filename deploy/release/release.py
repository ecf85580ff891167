"""Builds a release into dist/release, installs it without the checkout, serves, and asks.

python deploy/release/release.py [--rehearse]
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
_DIST = ROOT / "dist/release"
_CHART = ROOT / "deploy/helm/skipserve"

_QUESTION, _ANSWER = "How many red squares are there?", "2"
_POLICY = "skip-block-every-3-from-16"


class ReleaseError(Exception):
    """Something keeps this from being a release."""


def version_of(root: Path) -> str:
    """Return the project's version.

    Raises:
        ReleaseError: the chart has another one, or the changelog has nothing to say about it.
    """
    version = str(tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"])
    chart = yaml.safe_load((root / "deploy/helm/skipserve/Chart.yaml").read_text("utf-8"))
    if {str(chart["version"]), str(chart["appVersion"])} != {version}:
        raise ReleaseError(f"deploy/helm/skipserve/Chart.yaml is not of version {version}")
    if version != _newest(root)[0]:
        raise ReleaseError(f"CHANGELOG.md does not begin with version {version}")
    return version


def check_is_final(root: Path) -> None:
    """Make sure that what is built can be told and found again.

    Raises:
        ReleaseError: the changelog has no date, or there are changes without a commit.
    """
    version, date = _newest(root)
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        raise ReleaseError(f"CHANGELOG.md calls {version} {date!r}: give it a date, or --rehearse")
    if _output("git", "-C", str(root), "status", "--porcelain"):
        raise ReleaseError("there are changes without a commit: commit them, or --rehearse")


def _newest(root: Path) -> tuple[str, str]:
    """Return the version of the changelog's first heading, and what it says of its date."""
    text = (root / "CHANGELOG.md").read_text("utf-8")
    found = re.search(r"^## (\S+) \((.+)\)$", text, flags=re.MULTILINE)
    if found is None:
        raise ReleaseError("CHANGELOG.md has no heading such as `## 1.0.0 (2030-01-31)`")
    return found.group(1), found.group(2)


def build(folder: Path) -> Path:
    """Write wheel, source archive, chart and digests into an empty folder; return the wheel."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for target in ("sdist", "wheel"):
        _run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder)
    _run(_program("helm"), "package", _CHART, "--destination", folder)
    lines = (
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(folder.iterdir())
    )
    (folder / "SHA256SUMS").write_text("".join(list(lines)), "utf-8")
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel with what serving needs into a new environment; return its Python."""
    _run(sys.executable, "-m", "venv", folder)
    python = folder / "bin/python"
    _run(python, "-m", "pip", "install", "--disable-pip-version-check", f"{wheel}[server]")
    return python


def try_out(python: Path, version: str) -> None:
    """Serve the demo with an installed skipserve, far from the checkout, and ask it.

    Raises:
        ReleaseError: it is another version, is not the installed one, or answers otherwise.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        home = Path(
            _output(python, "-c", "import skipserve; print(skipserve.__path__[0])", cwd=elsewhere)
        )
        if ROOT in home.parents and python.parents[1] not in home.parents:
            raise ReleaseError(f"{home} is not what was installed")
        told = _output(python, "-m", "skipserve_client", "version", cwd=elsewhere)
        if told != version:
            raise ReleaseError(f"what was installed says that it is {told}, not {version}")
        with _served(python, elsewhere) as url:
            command = ("ask", home / "picture.png", _QUESTION, "--policy", _POLICY)
            ask = (python, "-m", "skipserve_client", *command, "--url", url, "--json")
            answer = json.loads(_output(*ask, cwd=elsewhere))
    if answer["text"] != _ANSWER or answer["skip"]["policy"] != _POLICY:
        raise ReleaseError(f"the demo answers {answer}, not {_ANSWER!r} under {_POLICY}")


@contextmanager
def _served(python: Path, elsewhere: str) -> Iterator[str]:
    """Serve the demo on a free port of this machine; give its address."""
    command: list[str | Path] = [
        python,
        "-m",
        "skipserve_client",
        "serve",
        "--model",
        "demo",
        "--port",
        "0",
    ]
    server = subprocess.Popen(
        command, cwd=elsewhere, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if found := re.search(r'serves .* on (http://[^\s"]+)', line):
                yield found.group(1)
                return
        raise ReleaseError("the server ended before it was ready")
    finally:
        server.terminate()
        server.communicate()


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join((str(Path(sys.executable).parent), os.defpath)))
    if found is None:
        raise ReleaseError(f"there is no {name}: `make install` brings it")
    return found


def _run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


def _output(*command: str | Path, cwd: str | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout.strip()


def main() -> None:
    """Build, install, serve, ask; say what to publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="do not ask for a date and commits")
    arguments = parser.parse_args()
    version = version_of(ROOT)
    if not arguments.rehearse:
        check_is_final(ROOT)
    wheel = build(_DIST)
    with tempfile.TemporaryDirectory() as folder:
        try_out(install(wheel, Path(folder) / "venv"), version)
    sys.stdout.write(f"skipserve {version} serves and answers from its wheel; {_DIST} holds\n")
    sys.stdout.write((_DIST / "SHA256SUMS").read_text("utf-8"))


if __name__ == "__main__":
    try:
        main()
    except ReleaseError as error:
        raise SystemExit(f"no release: {error}") from error
