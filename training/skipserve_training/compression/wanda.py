"""Wanda: layer by layer, each scored by what the layers before it, pruned already, feed it.

Source: "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from skipserve_training.compression.calibration import Calibration
from skipserve_training.compression.mask_files import Masks, read_masks, write_masks
from skipserve_training.compression.masks import choose, wanda_scores
from skipserve_training.compression.recipe import CompressionRecipe
from skipserve_training.mapping.blocks import Block, Sight
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.planned import EVERYTHING, run_block


def prunable(
    language: FrozenLanguageModel, layer: int, recipe: CompressionRecipe
) -> dict[str, nn.Linear]:
    """Return the linear layers of a block that a recipe touches, by their weights' names."""
    return {
        name: linear
        for in_attention in recipe.part.halves
        for name, linear in language.linears(layer, in_attention=in_attention)
    }


def apply_masks(linears: dict[str, nn.Linear], masks: Masks) -> None:
    """Zero what does not stay."""
    for name, mask in masks.items():
        weight = linears[name].weight.data
        weight.masked_fill_(~mask.to(weight.device), 0)


@torch.no_grad()
def wanda(
    language: FrozenLanguageModel,
    recipe: CompressionRecipe,
    calibration: Calibration,
    folder: Path | None,
    progress: Callable[[int], None],
) -> Masks:
    """Prune a language model in place, whatever plan it is under: all rows run all blocks.

    Args:
        language: what is pruned.
        recipe: how much of it.
        calibration: what it is fed.
        folder: where the masks of finished layers are kept, and found again; None for nowhere.
        progress: called with the number of layers that are done.

    Returns:
        The masks, on the CPU.
    """
    masks: Masks = {}
    entered = map(language.enter, calibration.rows, calibration.batches)
    states, sights = zip(*entered, strict=True)
    for layer, block in enumerate(language.blocks):
        linears = prunable(language, layer, recipe)
        path = None if folder is None else folder / f"layer-{layer:03}.safetensors"
        if path is not None and path.exists():
            found = read_masks(path, {name: it.weight.shape for name, it in linears.items()})
        else:
            with _squares(linears) as squares:
                _run(block, states, sights)
            found = _choose(recipe, linears, squares)
            if path is not None:
                write_masks(found, path)
        apply_masks(linears, found)
        states = _run(block, states, sights)
        masks |= found
        progress(layer + 1)
    return masks


def _run(block: Block, states: Sequence[Tensor], sights: Sequence[Sight]) -> tuple[Tensor, ...]:
    return tuple(
        run_block(block, EVERYTHING, hidden, sight)
        for hidden, sight in zip(states, sights, strict=True)
    )


def _choose(
    recipe: CompressionRecipe, linears: dict[str, nn.Linear], squares: dict[str, Tensor]
) -> Masks:
    assert recipe.pattern is not None
    return {
        name: choose(wanda_scores(linear.weight, squares[name]), recipe.pattern, by_row=True).cpu()
        for name, linear in linears.items()
    }


@contextmanager
def _squares(linears: dict[str, nn.Linear]) -> Iterator[dict[str, Tensor]]:
    """Sum up the squares of what linear layers are fed while the context lasts, [I] each."""
    sums: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            del module
            seen = inputs[0].flatten(0, -2).double().square().sum(0)
            sums[name] = sums[name] + seen if name in sums else seen

        return add

    hooks = [it.register_forward_pre_hook(watch(name)) for name, it in linears.items()]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()
