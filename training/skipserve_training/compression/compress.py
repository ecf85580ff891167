"""Zeroes weights of a language model by a recipe, and says how many went."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import torch
from torch import nn

from skipserve_training.compression.calibration import Calibration
from skipserve_training.compression.mask_files import Masks, read_masks
from skipserve_training.compression.masks import (
    check_groups,
    choose,
    magnitude_scores,
    random_scores,
)
from skipserve_training.compression.recipe import CompressionRecipe, Group, Method
from skipserve_training.compression.wanda import apply_masks, prunable, wanda
from skipserve_training.mapping.language import FrozenLanguageModel

# Called with what is under way, and how many layers of how many are done.
LayerFunction = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Report:
    """How many weights went.

    Attributes:
        removed: weights that the masks zero.
        considered: weights of the linear layers that were touched.
        zeros: those of them that are zero now, with those that were before.
        parameters: of the whole language model, embedding and head too.
        least, most: the smallest and the largest share that went of any matrix.
        tokens: rows of each task's calibration.
    """

    removed: int
    considered: int
    zeros: int
    parameters: int
    least: float
    most: float
    tokens: dict[str, int]

    @property
    def sparsity(self) -> float:
        """Return the share of the weights that were considered and went."""
        return self.removed / self.considered


@torch.no_grad()
def compress(
    language: FrozenLanguageModel,
    recipe: CompressionRecipe,
    calibrations: Sequence[Calibration] = (),
    *,
    mask_file: Path | None = None,
    folder: Path | None = None,
    progress: LayerFunction = lambda task, done, total: None,
) -> tuple[Masks, Report]:
    """Zero weights in place.

    Args:
        language: what loses weights.
        recipe: which.
        calibrations: one for Wanda, two tasks or more for alpha-SubNet, none for the others.
        mask_file: which weights stay, for the method of that name.
        folder: where finished layers of what is calibrated are kept, and found again.
        progress: called after each layer.

    Returns:
        The masks, True where a weight stays, and how many went.

    Raises:
        ValueError: A calibration or a file is missing or too many, or does not fit.
    """
    given = check(language, recipe, calibrations, mask_file=mask_file)
    linears = _prunable(language, recipe)
    if given is not None:
        masks = given
    elif recipe.method.is_calibrated:
        masks = _shared(language, recipe, linears, calibrations, folder, progress)
    else:
        masks = _scored(language, recipe, progress)
    apply_masks(linears, masks)
    return masks, _report(language, masks, linears, calibrations)


def check(
    language: FrozenLanguageModel,
    recipe: CompressionRecipe,
    calibrations: Sequence[Calibration] = (),
    *,
    mask_file: Path | None = None,
) -> Masks | None:
    """Make sure that a compression can be done, before anything is; the arguments are `compress`'s.

    Returns:
        The file's masks, where there is one.

    Raises:
        ValueError: As `compress` does.
    """
    _check_given(recipe, calibrations, mask_file)
    shapes = {name: it.weight.shape for name, it in _prunable(language, recipe).items()}
    if isinstance(recipe.pattern, Group):
        for shape in shapes.values():
            check_groups(recipe.pattern, shape[1])
    return None if mask_file is None else read_masks(mask_file, shapes)


def _prunable(language: FrozenLanguageModel, recipe: CompressionRecipe) -> dict[str, nn.Linear]:
    return {
        name: linear
        for layer in range(len(language.blocks))
        for name, linear in prunable(language, layer, recipe).items()
    }


def _check_given(
    recipe: CompressionRecipe, calibrations: Sequence[Calibration], mask_file: Path | None
) -> None:
    method = recipe.method
    if (mask_file is not None) != (method is Method.MASK):
        needs = "needs one" if method is Method.MASK else "takes none"
        raise ValueError(f"mask_file: the method {method.value!r} {needs}.")
    wanted = {Method.WANDA: "one calibration", Method.ALPHA_SUBNET: "two tasks or more"}
    count = len(calibrations)
    fits = {Method.WANDA: count == 1, Method.ALPHA_SUBNET: count > 1}.get(method, count == 0)
    if not fits:
        raise ValueError(
            f"calibrations: the method {method.value!r} takes {wanted.get(method, 'none')}, and "
            f"was given {count}."
        )
    names = [calibration.name for calibration in calibrations]
    if len(set(names)) < count:
        raise ValueError(f"calibrations: two tasks have one name, of {', '.join(names)}.")


def _scored(
    language: FrozenLanguageModel, recipe: CompressionRecipe, progress: LayerFunction
) -> Masks:
    """Choose by what weights are themselves, within each matrix."""
    assert recipe.pattern is not None
    masks: Masks = {}
    for layer in range(len(language.blocks)):
        for name, linear in prunable(language, layer, recipe).items():
            if recipe.method is Method.RANDOM:
                scores = random_scores(linear.weight, recipe.seed, name)
            else:
                scores = magnitude_scores(linear.weight)
            masks[name] = choose(scores, recipe.pattern, by_row=False).cpu()
        progress(recipe.method, layer + 1, len(language.blocks))
    return masks


def _shared(
    language: FrozenLanguageModel,
    recipe: CompressionRecipe,
    linears: dict[str, nn.Linear],
    calibrations: Sequence[Calibration],
    folder: Path | None,
    progress: LayerFunction,
) -> Masks:
    """Keep what Wanda keeps for every task, each on the weights as they were.

    Source: the alpha-SubNet of "Implicit Multimodal Alignment", arXiv 2405.16700, and of "Skipping
    Computations in Multimodal LLMs", arXiv 2410.09454.
    """
    num_layers = len(language.blocks)
    before = {name: linear.weight.detach().clone() for name, linear in linears.items()}
    found: list[Masks] = []
    for calibration in calibrations:
        place = None if folder is None else folder / calibration.name
        found.append(
            wanda(
                language,
                recipe,
                calibration,
                place,
                partial(_tell, progress, calibration.name, num_layers),
            )
        )
        for name, linear in linears.items():
            linear.weight.data.copy_(before[name])
    return reduce(lambda one, other: {name: one[name] & other[name] for name in one}, found)


def _tell(progress: LayerFunction, task: str, total: int, done: int) -> None:
    progress(task, done, total)


def _report(
    language: FrozenLanguageModel,
    masks: Masks,
    linears: dict[str, nn.Linear],
    calibrations: Sequence[Calibration],
) -> Report:
    removed = {name: int((~mask).sum()) for name, mask in masks.items()}
    shares = [removed.get(name, 0) / it.weight.numel() for name, it in linears.items()]
    return Report(
        removed=sum(removed.values()),
        considered=sum(linear.weight.numel() for linear in linears.values()),
        zeros=sum(int((linear.weight == 0).sum()) for linear in linears.values()),
        parameters=language.num_parameters,
        least=min(shares),
        most=max(shares),
        tokens={calibration.name: calibration.num_tokens for calibration in calibrations},
    )
