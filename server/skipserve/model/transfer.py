"""Arrays on their way to the device, while the host goes on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.int64] | NDArray[np.float64]

_DTYPES = {np.dtype(np.int64): torch.int64, np.dtype(np.float64): torch.float64}


def to_device(arrays: Sequence[Numbers], device: torch.device) -> list[Tensor]:
    """Bring arrays to a device, to a GPU in one copy that the host does not wait for.

    Args:
        arrays: int64 or float64, of any shapes.
        device: where to; on the CPU the tensors share the memory of the arrays.

    Returns:
        Tensors of the same types and shapes. On a GPU each starts at a multiple of 8 bytes.
    """
    if device.type == "cpu" or not arrays:
        return [torch.from_numpy(array) for array in arrays]
    num_numbers = sum(array.size for array in arrays)
    block = torch.empty(num_numbers, dtype=torch.int64, device=device)
    send(arrays, block)
    return _cut(block, arrays)


def send(arrays: Sequence[Numbers], target: Tensor) -> None:
    """Copy the bits of arrays to the beginning of a block of int64, without waiting for a GPU.

    They start in pinned memory, from torch's caching allocator: a copy that does not block records
    an event for it, and the allocator hands memory that is let go of out again only when its events
    are over (copy_kernel_cuda in ATen/native/cuda/Copy.cu).

    Args:
        arrays: int64 or float64, at least one; they lie one behind the other in the end.
        target: [N], with room for all of them.
    """
    num_numbers = sum(array.size for array in arrays)
    is_pinned = target.device.type == "cuda"
    block = torch.empty(num_numbers, dtype=torch.int64, pin_memory=is_pinned)
    np.concatenate([array.ravel().view(np.int64) for array in arrays], out=block.numpy())
    target[:num_numbers].copy_(block, non_blocking=True)


def _cut(block: Tensor, arrays: Sequence[Numbers]) -> list[Tensor]:
    """Return the pieces of a joined block as what the arrays were."""
    pieces = torch.split(block, [array.size for array in arrays])
    return [
        piece.view(_DTYPES[array.dtype]).view(array.shape)
        for piece, array in zip(pieces, arrays, strict=True)
    ]
