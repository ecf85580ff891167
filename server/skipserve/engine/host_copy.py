"""Tensors on their way to the host, while the device goes on with what is launched next."""

import torch
from torch import Tensor


class HostCopy:
    """Copies of tensors of one device; they start to travel when this is made."""

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tensors
        self._arrival: torch.cuda.Event | None = None
        if tensors[0].is_cuda:
            self._tensors = tuple(_start_copy(tensor) for tensor in tensors)
            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record(torch.cuda.current_stream(tensors[0].device))

    def wait(self) -> tuple[Tensor, ...]:
        """Return the copies, once they are there; on the CPU the tensors themselves."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._tensors


def _start_copy(tensor: Tensor) -> Tensor:
    # A copy to memory that is not pinned would make the host wait for it.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
