"""Root mean square normalisation: the public functions."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Gain:
    """What a normalisation multiplies by, made ready.

    Attributes:
        scaled: the gain times sqrt(D), [D] float32.
        floor: sqrt(D * epsilon), a scalar: the least length of a row that is divided by.
    """

    scaled: Tensor
    floor: Tensor


def pack_gain(gain: Tensor, epsilon: float) -> Gain:
    """Make a gain [D] ready for `rms_norm`."""
    width = len(gain)
    floor = torch.tensor((width * epsilon) ** 0.5, dtype=torch.float32, device=gain.device)
    return Gain(scaled=gain.float() * width**0.5, floor=floor)


def rms_norm(x: Tensor, gain: Gain) -> Tensor:
    """Return x / sqrt(mean(x^2) + epsilon) * gain for each row of x [T, D].

    With the length |x| of a row this is x / hypot(|x|, floor) * scaled: four operations in float32
    and one rounding, where torch's own takes twice as many.
    """
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    normed = x / length.hypot_(gain.floor)
    return normed.mul_(gain.scaled).to(x.dtype)
