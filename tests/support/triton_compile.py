"""Lets launchers compile kernels for a GPU that is not there: nothing is launched.

It changes Triton 3.6.0 for the rest of the process and needs Triton without its interpreter
(TRITON_INTERPRET=0), so it belongs into a process of its own.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from skipserve_kernels.fused import tiles

# Whose modules may ask for a device's architecture.
_OURS = ("skipserve_kernels", "on_gpu")


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch that would have been.

    Attributes:
        name: of the kernel.
        arguments: of which the binary consists: each parameter's type, and its value if that is
            part of the binary, or what is known of it.
        binary: the compiled kernel; None if it was not to be compiled.
    """

    name: str
    arguments: dict[str, str]
    binary: Any


class Recorder:
    """Makes launches of this process report themselves instead of running.

    Launchers may be given tensors of any device, "meta" included, and find the architecture's
    tiles. Launches of one binary are all reported.

    Args:
        arch: that is compiled for.
        on_launch: is told of each launch.
        compiles: whether binaries are made; reports are the same without, but for `binary`.
    """

    def __init__(
        self, arch: int, on_launch: Callable[[Launch], None], *, compiles: bool = True
    ) -> None:
        assert not triton.knobs.runtime.interpret, "this process interprets kernels"
        self._on_launch = on_launch
        self._compiles = compiles
        self._arguments: dict[str, str] = {}
        self._arguments_of: dict[str, dict[str, str]] = {}
        self._run = JITFunction.run
        JITFunction.run = partialmethod(Recorder._report, self)
        triton.knobs.runtime.jit_cache_hook = self._note
        triton.runtime.driver.set_active(_driver(arch))
        _replace_architecture(arch)

    def _note(self, *, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        """Hear of a binary that the process does not have yet; return true to do without."""
        self._arguments = _describe(fn.jit_function, compile)
        return not self._compiles

    @staticmethod
    def _report(kernel: Any, self: "Recorder", *args: Any, **options: Any) -> Any:
        """Stand in for the kernel's own `run`, which is why the kernel comes first."""
        binary = self._run(kernel, *args, **(options | {"warmup": True}))
        arguments = self._arguments
        if binary is not None:
            arguments = self._arguments_of.setdefault(binary.hash, arguments)
        self._on_launch(Launch(kernel.fn.__name__, arguments, binary))
        return binary


def _driver(arch: int) -> SimpleNamespace:
    """Return what the compiler asks of a device's driver."""
    target = GPUTarget("cuda", arch, 32)
    return SimpleNamespace(
        get_current_target=lambda: target,
        get_current_device=lambda: 0,
        get_current_stream=lambda device=None: 0,
        get_active_torch_device=lambda: torch.device("meta"),
    )


def _replace_architecture(arch: int) -> None:
    """Let every kernel that asks for a device's architecture hear of this one."""
    real = tiles.architecture
    for name, module in list(sys.modules.items()):
        if name.startswith(_OURS) and vars(module).get("architecture") is real:
            module.architecture = lambda device: arch  # type: ignore[attr-defined]


def _describe(kernel: Any, compiled: dict[str, Any]) -> dict[str, str]:
    """Return what a binary is made for, parameter by parameter."""
    known = {path: str(value) for path, value in compiled["constants"].items()}
    [attributes] = compiled["configs"]
    known |= {path: str(value) for path, value in attributes.items()}
    described = {
        parameter.name: f"{compiled['signature'][parameter.name]} {known.get((place,), '')}".strip()
        for place, parameter in enumerate(kernel.params)
    }
    return described | {option: str(compiled[option]) for option in ("num_warps", "num_stages")}
