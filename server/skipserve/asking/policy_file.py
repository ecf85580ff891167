"""The file of the policies that were added while the server ran; the server alone writes it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from skipserve.errors import StorageError
from skipserve_policies.catalog import load_added, policies_text
from skipserve_policies.resolve import PolicyError
from skipserve_policies.schema import SkipPolicy


@dataclass(frozen=True)
class Staged:
    """What is to take the place of a file.

    Attributes:
        path: where it stands meanwhile.
        content: what it holds.
    """

    path: Path
    content: bytes

    def discard(self) -> None:
        """Leave the file as it is; called again, it does nothing."""
        self.path.unlink(missing_ok=True)


class PolicyFile:
    """Holds policies in the form of an operator's own file, which it may become.

    Args:
        path: the file; there need be none yet. A link is followed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = path.resolve()
        # What stood there when it was last read or written; None for no file.
        self._known: bytes | None = None

    @property
    def can_be_written(self) -> bool:
        """Whether the file's folder takes new files, as far as can be told beforehand."""
        return os.access(self._real.parent, os.W_OK | os.X_OK)

    def read(self, taken: Container[str]) -> dict[str, SkipPolicy]:
        """Return the policies of the file, which may take none of the names that there are.

        Raises:
            PolicyError: its folder is missing, or it cannot be used; a line each.
        """
        if not self._real.parent.is_dir():
            raise PolicyError(f"{self.path}: there is no folder {self._real.parent} to keep it in")
        if not self._real.exists():
            return {}
        policies = load_added(
            self.path, taken, "a policy that ships, of the model or of --policies"
        )
        self._known = self._real.read_bytes()
        return policies

    def stage(self, policies: Mapping[str, SkipPolicy]) -> Staged:
        """Write policies beside the file, on the disk for good; nothing is changed by that.

        Raises:
            StorageError: they cannot be written, or the file is not as the server left it.
        """
        try:
            self._check_unchanged()
            return self._stage(policies_text(policies).encode())
        except OSError as error:
            raise StorageError(
                "the file of added policies (--added-policies) cannot be written: "
                f"{error.strerror or 'the disk refuses it'}; nothing was changed"
            ) from error

    def _check_unchanged(self) -> None:
        try:
            found = self._real.read_bytes()
        except FileNotFoundError:
            found = None
        if found != self._known:
            raise StorageError(
                "the file of added policies (--added-policies) is not as this server left it: "
                "somebody has edited it, or another server writes it. Give each server a file of "
                "its own, and start this one again; nothing was changed"
            )

    def _stage(self, content: bytes) -> Staged:
        descriptor, name = tempfile.mkstemp(prefix=f".{self._real.name}.", dir=self._real.parent)
        staged = Staged(Path(name), content)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(self._real, staged.path)
        except OSError:
            staged.discard()
            raise
        return staged

    def commit(self, staged: Staged) -> None:
        """Put what was staged in the place of the file, in one step.

        Raises:
            StorageError: that cannot be done.
        """
        try:
            staged.path.replace(self._real)
        except OSError as error:
            staged.discard()
            raise StorageError(
                "the file of added policies (--added-policies) cannot be replaced: "
                f"{error.strerror or 'the disk refuses it'}; nothing was changed"
            ) from error
        self._known = staged.content
