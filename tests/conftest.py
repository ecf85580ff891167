"""What every test shares."""

import os

import pytest
import torch
import triton_interpreter  # noqa: F401 - it must come before triton
from hypothesis import HealthCheck, settings
from patience import pytest_timeout_set_timer  # noqa: F401 - a hook of pytest-timeout's
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

_IMAGE = "tests/deploy/docker/"


class _Dealer(LoadFileScheduling):  # type: ignore[misc]
    """Deals out files to the processes, but the image's all to one: they share what was built."""

    def _split_scope(self, nodeid: str) -> str:
        return _IMAGE if nodeid.startswith(_IMAGE) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Deal out whole files: their tests share what is slow to make."""
    return _Dealer(config, log)


def pytest_configure() -> None:
    """Let Hypothesis take its time, keep the shell's settings out, run torch on one thread.

    A busy machine is no failure. Two threads on shared cores are slower, and sums may change with
    their number: modules compute some of them while they are imported.
    """
    for name in [name for name in os.environ if name.upper().startswith("SKIPSERVE_")]:
        del os.environ[name]
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.load_profile("patient")
    torch.set_num_threads(1)
