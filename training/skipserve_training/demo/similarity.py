"""How alike neighbouring decoder layers are: growth by splitting starts siblings as copies."""

import torch
from torch import Tensor

from skipserve_training.demo.model import DecoderBlock, DemoModel

_MATRICES = ("qkv", "output", "gate_up", "down")


def sibling_cosines(model: DemoModel, copies: int) -> dict[str, float]:
    """Return the mean cosine between the matrices of neighbours, siblings or not.

    Args:
        model: the grown model.
        copies: into how many layers each was split; siblings are made from one layer.
    """
    cosines = _neighbour_cosines(model.decoder.stacks())
    numbers = torch.arange(len(cosines))
    are_siblings = (numbers + 1) % copies != 0
    return {
        "siblings": cosines[are_siblings].mean().item(),
        "others": cosines[~are_siblings].mean().item(),
    }


def _neighbour_cosines(stacks: DecoderBlock) -> Tensor:
    """Return, for each layer but the last, its cosine with the next one, `[L - 1]`."""
    flat = torch.cat([getattr(stacks, name).detach().flatten(1) for name in _MATRICES], dim=1)
    return torch.cosine_similarity(flat[:-1], flat[1:]).cpu()
