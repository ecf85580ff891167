"""What every test shares."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from patience import pytest_timeout_set_timer  # noqa: F401 - a hook of pytest-timeout's
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, LoadScheduling, Scheduling

_IMAGE = "tests/deploy/docker/"


class _Dealer(LoadFileScheduling):  # type: ignore[misc]
    """Deals out files to the processes, but the image's all to one: they share what was built."""

    def _split_scope(self, nodeid: str) -> str:
        return _IMAGE if nodeid.startswith(_IMAGE) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Deal out whole files: their tests share what is slow to make; on a GPU that is compiling."""
    is_gpu = config.getoption("--device") == "cuda"
    return LoadScheduling(config, log) if is_gpu else _Dealer(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests of kernels and models run on a GPU."""
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where kernels and models are tested; on the CPU kernels run in Triton's interpreter",
    )


def pytest_configure(config: pytest.Config) -> None:
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
    _choose_who_runs_kernels(config.getoption("--device"))


def _choose_who_runs_kernels(device: str) -> None:
    """Have kernels compiled for a GPU, or else interpreted; Triton decides it while it is imported.

    Raises:
        UsageError: there is no GPU.
    """
    if device == "cuda":
        if not torch.cuda.is_available():
            raise pytest.UsageError(
                "--device cuda: torch finds no GPU; without it, the CPU is tested"
            )
        os.environ["TRITON_INTERPRET"] = "0"
        # A GPU's convolutions else round float32.
        torch.backends.cudnn.allow_tf32 = False
    import triton_interpreter  # noqa: F401, PLC0415 - it must come before triton


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a GPU, skip what asks for no device: it is about the CPU, the interpreter or compiling."""
    if config.getoption("--device") == "cpu":
        return
    skipped = pytest.mark.skip(reason="it is not about the device")
    for item in items:
        if "device" not in getattr(item, "fixturenames", ()):
            item.add_marker(skipped)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where kernels and models run."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def gpu(device: torch.device) -> torch.device:
    """The device, for what a CPU does not do."""
    if device.type != "cuda":
        pytest.skip("needs --device cuda")
    return device
