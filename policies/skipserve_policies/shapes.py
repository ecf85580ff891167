"""A prompt with all rows of its images, and the same with those that a reduction leaves.

A row of text stands for itself. Where n rows are left of an image's N, the first o of them stand
for the first floor(o N / n) of all: each place in the one prompt has a place in the other, and that
leads back to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from skipserve_policies.flops import Request
from skipserve_policies.plan import TokenClass
from skipserve_policies.reduction import Reduction
from skipserve_policies.sizes import ModelSizes

Prompt = Sequence[TokenClass]


@dataclass(frozen=True)
class Resized:
    """A prompt whose images take another number of rows than before.

    Attributes:
        prompt: its classes.
        places: of each place between rows of the old prompt, its ends among them, the place in this
            one that it corresponds to.
    """

    prompt: tuple[TokenClass, ...]
    places: tuple[int, ...]

    def place(self, old: int) -> int:
        """Return what corresponds to a place in the old prompt, or in the answer behind it."""
        last = len(self.places) - 1
        return self.places[min(old, last)] + max(old - last, 0)


def resize(prompt: Prompt, old: int, new: int) -> Resized:
    """Return a prompt whose images take `new` rows where they took `old`."""
    classes: list[TokenClass] = []
    places = [0]
    for piece, is_image in _pieces(prompt, old):
        start = len(classes)
        if is_image:
            offsets = [_scaled(number, old, new) for number in range(1, len(piece) + 1)]
            # The last row of a prompt is of its own class, and may be an image's.
            size = new - 1 if len(piece) == old - 1 else offsets[-1]
            places += [start + min(offset, size) for offset in offsets]
            classes += [TokenClass.VISUAL] * size
        else:
            places += range(start + 1, start + len(piece) + 1)
            classes += piece
    return Resized(tuple(classes), tuple(places))


def _scaled(number: int, old: int, new: int) -> int:
    """Return how many of `new` rows stand for so many of `old`: fewer lead back by rounding up."""
    return number * new // old if new >= old else -(-number * new // old)


def _pieces(prompt: Prompt, image_rows: int) -> Iterator[tuple[list[TokenClass], bool]]:
    """Yield images, and what is between them."""
    for token_class, run in groupby(prompt):
        rows = list(run)
        if token_class is TokenClass.VISUAL:
            for start in range(0, len(rows), image_rows):
                yield rows[start : start + image_rows], True
        else:
            yield rows, False


def reduced_request(sizes: ModelSizes, request: Request, reduction: Reduction | None) -> Request:
    """Return what is left of a request with all rows of its images."""
    if reduction is None:
        return request
    return _resized(request, sizes.rows_per_image, reduction.num_rows)


def whole_request(sizes: ModelSizes, request: Request, reduction: Reduction | None) -> Request:
    """Return the request with all rows of its images of which a reduced one is left."""
    if reduction is None:
        return request
    return _resized(request, reduction.num_rows, sizes.rows_per_image)


def _resized(request: Request, old: int, new: int) -> Request:
    resized = resize(request.prompt, old, new)
    return replace(request, prompt=resized.prompt, num_cached=resized.places[request.num_cached])
