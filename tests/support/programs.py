"""Programs that tests need and a machine may lack."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"


def find(name: str, hint: str) -> str:
    """Return where a program is; do without the test where it is nowhere."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        do_without(name, f"{name} is not installed: {hint}")
    return path


def do_without(name: str, reason: str) -> NoReturn:
    """Skip the test that needs a program; fail it if TEST_REQUIRES names the program."""
    if name in os.environ.get("TEST_REQUIRES", "").split():
        pytest.fail(reason)
    pytest.skip(reason)
