"""Which weights of a matrix stay: scores, and the choice by them. Knows no model.

Shapes: O outputs, I inputs; a mask is True where a weight stays.
"""

import hashlib

import torch
from torch import Tensor

from skipserve_training.compression.recipe import Group, Pattern


def wanda_scores(weight: Tensor, squares: Tensor) -> Tensor:
    """Score weights [O, I] by their size times the norm of their inputs, fp32.

    Source: "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695,
    equation 1.

    Args:
        weight: the matrix.
        squares: sums of the squared inputs over the calibration's tokens, [I].
    """
    return weight.float().abs() * squares.float().sqrt()


def magnitude_scores(weight: Tensor) -> Tensor:
    """Score weights [O, I] by their size, fp32."""
    return weight.float().abs()


def random_scores(weight: Tensor, seed: int, name: str) -> Tensor:
    """Draw a lot for each weight [O, I]; a matrix's lots depend on its name and no other's."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    draw = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(weight.shape, generator=draw).to(weight.device)


def choose(scores: Tensor, pattern: Pattern, *, by_row: bool) -> Tensor:
    """Keep the weights of the highest scores; of equal ones the later.

    Args:
        scores: [O, I].
        pattern: how many stay.
        by_row: whether a share is that of each output row, and not of the matrix; a pattern of
            groups is one of a row's neighbours anyway.

    Raises:
        ValueError: The rows do not divide into the pattern's groups.
    """
    if isinstance(pattern, Group):
        check_groups(pattern, scores.shape[1])
        grouped = scores.view(-1, pattern.size)
        return _without_least(grouped, pattern.size - pattern.kept).view(scores.shape)
    compared = scores if by_row else scores.view(1, -1)
    return _without_least(compared, round(pattern.sparsity * compared.shape[1])).view(scores.shape)


def check_groups(pattern: Group, width: int) -> None:
    """Make sure that rows of so many weights divide into groups.

    Raises:
        ValueError: They do not.
    """
    if width % pattern.size:
        raise ValueError(f"The pattern {pattern} does not fit rows of {width} weights.")


def _without_least(scores: Tensor, count: int) -> Tensor:
    """Keep all but the `count` least scores of each row."""
    order = scores.argsort(dim=1, stable=True)
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, order[:, :count], False)
