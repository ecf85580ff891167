"""What the tests of the operations pages share: the benchmarks' folder, for the sizing page."""

import sys
from pathlib import Path


def pytest_configure() -> None:
    """Let tests import the benchmarks as these import each other: from their own folder."""
    sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
