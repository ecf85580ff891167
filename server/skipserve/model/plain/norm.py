"""Normalisations of rows, with their weights.

Shapes: T rows, D hidden.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import torch.nn.functional as F
from torch import Tensor

from skipserve.model.weights import Weights
from skipserve_kernels.plain.rms_norm.op import Gain, pack_gain, rms_norm


class Norm(Protocol):
    """Normalises rows."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Return rows [T, D], normalised."""


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """By the root mean square, as in LLaMA."""

    gain: Gain

    @classmethod
    def pack(cls, gain: Tensor, epsilon: float) -> Self:
        """Make a gain [D] ready."""
        return cls(pack_gain(gain, epsilon))

    def __call__(self, x: Tensor) -> Tensor:
        """Return rows [T, D], normalised."""
        return rms_norm(x, self.gain)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """By mean and variance, as in OPT; without gain and bias where these are None."""

    gain: Tensor | None
    bias: Tensor | None
    epsilon: float

    @classmethod
    def load(
        cls, weights: Weights, name: str, width: int, epsilon: float, *, has_gain: bool
    ) -> Self:
        """Read gain and bias, or neither."""
        if not has_gain:
            return cls(None, None, epsilon)
        gain, bias = (weights.take(f"{name}.{part}", width) for part in ("weight", "bias"))
        return cls(gain, bias, epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        """Return rows [T, D], normalised."""
        return F.layer_norm(x, x.shape[-1:], self.gain, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True)
class Chain:
    """One normalisation of what another one has left."""

    first: Norm
    second: Norm

    def __call__(self, x: Tensor) -> Tensor:
        """Return rows [T, D], normalised."""
        return self.second(self.first(x))


def as_they_are(x: Tensor) -> Tensor:
    """Return rows as they are: the normalisation of a place that has none."""
    return x
