"""The keys and values of one layer, as a model keeps them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Room for the keys and values of S slots; how they lie is a matter of who reads them.

    Plain attention has those of a head together, [1, K, S, C], fused kernels those of a slot,
    [S, K, C].
    """

    keys: Tensor
    values: Tensor
