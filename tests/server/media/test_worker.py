"""Tests of what a decoding process is made of; test_pool shows it at work."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

# They would cost each process tens of megabytes, and its start tens of milliseconds.
HEAVY = {"torch", "numpy", "pydantic", "fastapi", "transformers", "tokenizers", "asyncio"}


def test_a_process_imports_nothing_heavy() -> None:
    code = "import sys, skipserve.media.worker; print(*{it.split('.')[0] for it in sys.modules})"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert {"PIL", "skipserve", "msgspec"} <= set(printed.split())
    assert not HEAVY & set(printed.split())
