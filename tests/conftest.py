"""What every test shares."""

import pytest
import torch
import triton_interpreter  # noqa: F401 - it must come before triton
from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Let Hypothesis take its time: a busy machine is no failure."""
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Run torch on one thread: two on shared cores are slower, and sums may change."""
    torch.set_num_threads(1)
