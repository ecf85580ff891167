"""The FFN of a block: two halves, and what stands between them.

Shapes: T rows, D hidden, F FFN size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from skipserve_kernels.plain.linear.op import Linear, linear, linear_add
from skipserve_kernels.plain.swiglu.op import swiglu


class Ffn(Protocol):
    """Adds its output to the residual stream."""

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return `residual` with the output for x added to it; [T, D] each."""


@dataclass(frozen=True, slots=True)
class GatedFfn:
    """LLaMA's: an up projection with a gate beside it, as halves of one weight [2 F, D]."""

    gate_up: Linear
    down: Linear

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return `residual` with the output for x added to it; [T, D] each."""
        return linear_add(swiglu(linear(x, self.gate_up)), self.down, residual)


@dataclass(frozen=True, slots=True)
class PlainFfn:
    """OPT's: an activation between two projections."""

    up: Linear
    down: Linear
    activation: Callable[[Tensor], Tensor]

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return `residual` with the output for x added to it; [T, D] each."""
        return linear_add(self.activation(linear(x, self.up)), self.down, residual)
