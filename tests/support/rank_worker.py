"""What the processes of a test do; in a module of its own, for they must be able to import it."""

from pathlib import Path

import torch

from skipserve_training.demo.ranks import Ranks


def write_average(ranks: Ranks, folder: Path) -> None:
    """Average two tensors that differ by process and write what came out."""
    tensors = [torch.full((2,), float(ranks.rank)), torch.tensor([10.0 * ranks.rank])]
    ranks.average(tensors)
    ranks.wait()
    (folder / str(ranks.rank)).write_text(repr([tensor.tolist() for tensor in tensors]))
