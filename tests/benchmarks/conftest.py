"""What the tests of the benchmarks share: the benchmarks' folder, and a model for short runs."""

import sys
from pathlib import Path

import pytest
from tiny_llava import make_checkpoint


def pytest_configure() -> None:
    """Let tests import the benchmarks as these import each other: from their own folder."""
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny checkpoint with layers enough for the policies that the benchmarks name."""
    folder = tmp_path_factory.mktemp("models") / "deep"
    return make_checkpoint(folder, num_layers=20, hidden=32, num_heads=2, num_kv_heads=2, ffn=48)
