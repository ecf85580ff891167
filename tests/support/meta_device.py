"""The meta device as a stand-in for a GPU: whatever would make the host wait for it is an error.

Meta tensors have no data, so reading one fails anyway. What the mode adds are the quiet ways of
waiting: operations that bring unpinned host memory to a device, as an index on the host does.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skipserve.model.weights import Weights

META = torch.device("meta")

# The size of their result, or the result itself, goes to the host.
_READING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount"),
    *("_unique2", "unique_dim", "unique_consecutive"),
}
# In inference mode `to` itself comes here, not what it is made of.
_COPIES = {"_to_copy", "copy_", "to"}


class HostWaits(AssertionError):
    """An operation would make the host wait for the device."""


class MetaWeights(Weights):
    """Tensors of any name, without data."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = META, dtype

    def __contains__(self, name: str) -> bool:
        return True

    def take(self, name: str, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=META)

    def leave(self, pattern: str) -> None:
        """Have nothing to give up."""


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, raises HostWaits where a GPU would be waited for.

    A copy from the host has to be declared as one that does not block. Not seen without a GPU: that
    it starts in pinned memory, and a tensor made on the device from a list of numbers.

    Attributes:
        num_copies: between the host and the device.
        num_bytes: that they took from one to the other.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_copies = self.num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = _tensors((args, kwargs))
        is_on_device = any(tensor.is_meta for tensor in given)
        if is_on_device and (name in _READING or _has_mask(name, args)):
            raise HostWaits(f"{name} reads from the device")
        made = func(*args, **kwargs)
        is_on_device = is_on_device or any(tensor.is_meta for tensor in _tensors(made))
        # A number in a tensor of its own is handed over with the launch.
        is_on_host = any(tensor.is_cpu and tensor.dim() for tensor in given)
        if is_on_host and is_on_device:
            if not (name in _COPIES and _is_non_blocking(args, kwargs)):
                raise HostWaits(f"{name} brings host memory to the device")
            self.num_copies += 1
            self.num_bytes += max(tensor.nbytes for tensor in given if tensor.is_cpu)
        return made


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _has_mask(name: str, args: tuple[Any, ...]) -> bool:
    # What is indexed, the indexes, and what is put there.
    return name in {"index", "index_put", "index_put_"} and any(
        tensor.dtype == torch.bool for tensor in _tensors(args[1])
    )


def _is_non_blocking(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # copy_(to, from, non_blocking)
    return bool(kwargs.get("non_blocking")) or (len(args) > 2 and bool(args[2]))
