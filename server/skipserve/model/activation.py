"""Activations by transformers' names for them."""

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from transformers.activations import ACT2FN

from skipserve.model.config import ModelFilesError


def activation_function(field: str, name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation by transformers' name for it.

    Raises:
        ModelFilesError: transformers does not know it, or it has weights of its own.
    """
    if not isinstance(name, str) or name not in ACT2FN:
        raise ModelFilesError(f"{field} is {name!r}, which transformers does not know")
    activation = ACT2FN[name]
    if isinstance(activation, nn.Module) and activation.state_dict():
        raise ModelFilesError(
            f"{field} is {name!r}, which has weights of its own; those are not supported"
        )
    return cast(Callable[[Tensor], Tensor], activation)
