"""Keeps what was measured in a file as it comes, so that a calibration goes on where it stopped."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skipserve_client.command_group import CommandError


class Journal:
    """Measurements by their keys; the first line says what they were made on.

    A line that was cut off is measured again.

    Args:
        path: the file; None keeps them in memory alone.
        conditions: what they are made on; plain JSON.

    Raises:
        CommandError: the file cannot be used, or holds measurements made on something else.
    """

    def __init__(self, path: Path | None, conditions: Mapping[str, Any]) -> None:
        self._found: dict[str, Any] = {}
        self._file = None
        if path is not None:
            try:
                self._file = path.open("a+b", buffering=0)
            except OSError as error:
                raise CommandError(f"{path} cannot be written: {error.strerror}") from error
            try:
                self._take_over(path, dict(conditions))
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        """Return how many measurements there are."""
        return len(self._found)

    def get(self, key: str) -> Any:
        """Return a measurement, None if there is none."""
        return self._found.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a measurement."""
        self._found[key] = value
        if self._file is not None:
            self._write([key, value])

    def _take_over(self, path: Path, conditions: dict[str, Any]) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandError(f"{path}: another calibration writes to it") from error
        self._file.seek(0)
        content = self._file.read()
        whole, _, cut = content.rpartition(b"\n")
        self._file.truncate(len(content) - len(cut))
        if not whole:
            self._write(conditions)
            return
        try:
            first, *lines = map(json.loads, whole.split(b"\n"))
            self._found = dict(lines)
        except ValueError as error:
            raise CommandError(f"{path} is no journal of a calibration: {error}") from error
        if first != conditions:
            raise CommandError(f"{path} {_difference(first, conditions)}: name another --report")

    def _write(self, value: Any) -> None:
        assert self._file is not None
        os.write(self._file.fileno(), json.dumps(value).encode() + b"\n")


def _difference(found: Any, wanted: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return "is no journal of a calibration"
    name = next(name for name in (*wanted, *found) if found.get(name) != wanted.get(name))
    return f"was made with {name} {found.get(name)!r}, and not {wanted.get(name)!r}"
