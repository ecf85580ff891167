"""What is left of an image before the decoder sees it: a rule, made concrete for a model."""

import hashlib
import math
from dataclasses import astuple, dataclass
from fractions import Fraction
from functools import cached_property

from skipserve_policies.schema import Reducer, ReduceVisual, amount_of
from skipserve_policies.sizes import MappingSizes, ModelSizes

# Of 64 rows VisionZip's paper merges 10; of 192 and 128 those who ran it again, as many.
_CONTEXTUAL_SHARE = "5/32"
_IMPORTANT_SHARE = "50%"
# A grid of patches is averaged to one of which no side is longer than this many times the other.
_MOST_STRETCHED = 2

# What looks at the attention of the tower's class token.
_NEEDS_CLS = frozenset({Reducer.VISIONZIP, Reducer.VISPRUNER})
# What acts on the patches' features, before the projector makes rows of them.
_NEEDS_PATCHES = _NEEDS_CLS | {Reducer.DOWNSAMPLE}


class ReductionMisfitError(ValueError):
    """A model lacks what a reducer looks at; the message says what."""


@dataclass(frozen=True)
class Reduction:
    """Which rows of an image of one model go on to the decoder.

    Attributes:
        method: how they are chosen.
        num_rows: how many there are.
        num_merged: of these, visionzip's means of others; they come last.
        num_important: of these, vispruner's most attended ones.
        grid: downsample's height and width.
        seed: random's, and that of no other.
    """

    method: Reducer
    num_rows: int
    num_merged: int = 0
    num_important: int = 0
    grid: tuple[int, int] = (0, 0)
    seed: int | None = None

    @cached_property
    def key(self) -> bytes:
        """The sha256 of all of it, 32 bytes."""
        return hashlib.sha256(repr(astuple(self)).encode()).digest()


def reduces_features(reduction: Reduction, sizes: ModelSizes) -> bool:
    """Return whether rows are chosen before the projector, which then sees the others alone."""
    has_rows_of_features = not isinstance(sizes.projector, MappingSizes)
    return has_rows_of_features and reduction.method is not Reducer.DIVPRUNE


def make_reduction(rule: ReduceVisual, sizes: ModelSizes) -> Reduction | None:
    """Return what a rule means for a model; None where it leaves all rows of an image.

    Raises:
        ReductionMisfitError: the model lacks what the method looks at.
    """
    _check_fits(rule.method, sizes)
    num_rows = _count(rule.keep, sizes.rows_per_image)
    if num_rows >= sizes.rows_per_image:
        return None
    match rule.method:
        case Reducer.VISIONZIP:
            num_merged = _count(rule.contextual or _CONTEXTUAL_SHARE, num_rows, least=0)
            # The class token's own row stays in any case.
            return Reduction(rule.method, num_rows, num_merged=min(num_merged, num_rows - 1))
        case Reducer.VISPRUNER:
            share = amount_of(rule.important or _IMPORTANT_SHARE)
            return Reduction(rule.method, num_rows, num_important=math.floor(share * num_rows))
        case Reducer.DIVPRUNE:
            return Reduction(rule.method, num_rows)
        case Reducer.RANDOM:
            return Reduction(rule.method, num_rows, seed=rule.seed or 0)
        case Reducer.DOWNSAMPLE:
            height, width = _grid(num_rows, math.isqrt(sizes.rows_per_image))
            return Reduction(rule.method, height * width, grid=(height, width))


def _check_fits(method: Reducer, sizes: ModelSizes) -> None:
    vision = sizes.vision
    if method in _NEEDS_CLS and not vision.has_cls:
        raise ReductionMisfitError(
            f"{method.value} ranks patches by the attention of the vision tower's class token, "
            "which this model's tower does not have"
        )
    if not vision.num_layers_used:
        raise ReductionMisfitError(
            "this model's features are taken before the first block of its vision tower"
        )
    if method not in _NEEDS_PATCHES:
        return
    if isinstance(sizes.projector, MappingSizes):
        raise ReductionMisfitError(
            f"{method.value} chooses among the rows of patches, and this model's mapping module "
            f"gives {sizes.rows_per_image} rows that are none of a patch"
        )
    if not vision.has_picture_tower:
        raise ReductionMisfitError(
            f"{method.value} chooses among the patches of a picture that CLIP's or SigLIP's tower "
            f"gives, and this model's encoder is of the type {vision.kind}"
        )
    if vision.keeps_cls:
        raise ReductionMisfitError(
            f"{method.value} chooses among the rows of patches, and this model shows the class "
            "token's row beside them (vision_feature_select_strategy is full)"
        )


def _count(amount: int | str, whole: int, least: int = 1) -> int:
    """Return how many of `whole` rows an amount is: of a share, to the nearest, halves up."""
    if isinstance(amount, int):
        return amount
    return max(math.floor(amount_of(amount) * whole + Fraction(1, 2)), least)


def _grid(num_rows: int, side: int) -> tuple[int, int]:
    """Return the coarser grid with the count nearest to `num_rows`, as square as such a one is."""
    found = (
        (height, width)
        for height in range(1, side + 1)
        for width in range(height, min(side, _MOST_STRETCHED * height) + 1)
        if height < side
    )
    return min(found, key=lambda it: (abs(it[0] * it[1] - num_rows), it[1] - it[0]))
