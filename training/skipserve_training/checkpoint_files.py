"""The files beside a checkpoint's weights: checksums, and the record of what made it."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

from skipserve.pretrained.places import CHECKSUMS, RECORD


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every other file, as `sha256sum --check` reads it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
        if path.name != CHECKSUMS
    ]
    (folder / CHECKSUMS).write_text("".join(lines))


def write_record(folder: Path, record: dict[str, object]) -> None:
    """Write the record of the training beside its result."""
    text = json.dumps(record, indent=2)
    (folder / RECORD).write_text(text + "\n")


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Name the versions that a training ran with."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
