"""Two single-thread processes that train one model: faster on a CPU than two threads."""

import multiprocessing
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among those that train; rank 0 also reports and writes files."""

    rank: int = 0
    count: int = 1

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def started(count: int, worker: Callable[..., object], *arguments: object) -> Iterator[Ranks]:
    """Make this process rank 0 and run `worker(ranks, *arguments)` in the other ones."""
    torch.set_num_threads(1)
    if count == 1:
        yield Ranks()
        return
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    processes = [
        context.Process(target=_run, args=(rank, count, port, worker, *arguments), daemon=True)
        for rank in range(1, count)
    ]
    for process in processes:
        process.start()
    _join_group(0, count, port)
    try:
        yield Ranks(0, count)
        for process in processes:
            process.join()
    finally:
        dist.destroy_process_group()
        for process in processes:
            process.terminate()


def _run(
    rank: int, count: int, port: int, worker: Callable[..., object], *arguments: object
) -> None:
    torch.set_num_threads(1)
    _join_group(rank, count, port)
    worker(Ranks(rank, count), *arguments)
    dist.destroy_process_group()


def _join_group(rank: int, count: int, port: int) -> None:
    """Meet the other processes; one that died on its way is not waited for long."""
    patience = timedelta(minutes=2)
    store = dist.TCPStore("127.0.0.1", port, count, rank == 0, patience)  # type: ignore[attr-defined]
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=count, timeout=timedelta(minutes=30)
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
