"""The folder in which somebody has put a published data set; what is missing is told by name."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipserve_client.command_group import CommandError


@dataclass(frozen=True)
class Folder:
    """Where the files lie.

    Attributes:
        data: what the data set is called.
        holds: what is expected there, for messages.
    """

    data: str
    path: Path
    holds: str

    def file(self, name: str) -> Path:
        """Return a file of the folder.

        Raises:
            CommandError: it is not there.
        """
        file = self.path / name
        if not file.is_file():
            raise self.missing(name)
        return file

    def json(self, name: str) -> Any:
        """Read a file of JSON.

        Raises:
            CommandError: it is not there, or is no JSON.
        """
        file = self.file(name)
        with self.reading(file):
            return json.loads(file.read_text("utf-8"))

    def json_lines(self, name: str) -> list[Any]:
        """Read a file of JSON, a value a line.

        Raises:
            CommandError: it is not there, or is not of that form.
        """
        file = self.file(name)
        with self.reading(file):
            return [json.loads(it) for it in file.read_text("utf-8").splitlines() if it.strip()]

    @contextmanager
    def reading(self, file: Path) -> Iterator[None]:
        """Say that a file is not what it should be, where what is read of it does not fit.

        Raises:
            CommandError: it does not.
        """
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise CommandError(
                f"--data {self.data}: {file} is not in the form in which it is published: {reason}"
            ) from error

    def missing(self, name: str) -> CommandError:
        """Return the error for what is not there."""
        return CommandError(
            f"--data {self.data}: {self.path / name} is missing; --data-folder holds {self.holds}"
        )
