"""CIDEr-D: how much a caption says what people said, in n-grams weighted by how rare they are."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from skipserve_client.evaluate.metrics.caption_words import caption_words
from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.metric import (
    POINTS,
    Array,
    Measure,
    Tally,
    mean_tally,
    share,
)

Ngram = tuple[str, ...]
Vector = Mapping[Ngram, float]

_MOST_WORDS = 4
_SIGMA = 6.0  # words by which lengths may differ
_BEST = 10.0  # what a caption gets that equals all references, as published
_POINTS = 100.0  # by which papers multiply the mean


class CiderMetric:
    """The mean over pictures of CIDEr-D, times 100 as papers report it.

    How rare an n-gram is, is counted over the references of all pictures that were asked about, as
    the authors' program does; that stays fixed when pictures are resampled. So few pictures give
    another scale than many: compare figures of the same pictures alone.

    Source: Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", 2015, and
    cider_scorer.py of coco-caption, which computes the variant D.
    """

    name = "cider"
    tells_right = False
    measures = (Measure("CIDEr-D", POINTS),)

    def worths(self, items: Sequence[Item]) -> Sequence[float]:
        """Return each caption's CIDEr-D as a share of the most there can be."""
        frequencies = Counter(
            ngram for item in items for ngram in set().union(*map(_ngrams, item.expected))
        )
        log_pictures = math.log(len(items))
        rarity = {ngram: log_pictures - math.log(count) for ngram, count in frequencies.items()}
        return [
            _similarity(
                _ngrams(item.given), list(map(_ngrams, item.expected)), rarity, log_pictures
            )
            / _BEST
            for item in items
        ]

    def tally(self, items: Sequence[Item], worths: Array) -> Tally:
        """Count pictures and what their captions are worth together."""
        return mean_tally(items, worths, _points)

    def details(self, items: Sequence[Item]) -> Mapping[str, Mapping[str, float]]:
        """Return nothing: captions have no categories."""
        del items
        return {}


def _points(sums: Array) -> Array:
    return _POINTS * _BEST * share(sums[..., :1], sums[..., 1:])


@lru_cache(maxsize=1 << 18)
def _words(caption: str) -> tuple[str, ...]:
    """Cut a caption once, though each policy is held against the same references."""
    return tuple(caption_words(caption))


def _ngrams(caption: str) -> Mapping[Ngram, int]:
    words = _words(caption)
    return Counter(
        words[first : first + size]
        for size in range(1, _MOST_WORDS + 1)
        for first in range(len(words) - size + 1)
    )


def _similarity(
    given: Mapping[Ngram, int],
    references: Sequence[Mapping[Ngram, int]],
    rarity: Vector,
    log_pictures: float,
) -> float:
    """Return the mean over references and sizes of n-grams of their similarity, times 10."""
    ours = _weighted(given, rarity, log_pictures)
    total = 0.0
    for reference in references:
        theirs = _weighted(reference, rarity, log_pictures)
        difference = _num_pairs(given) - _num_pairs(reference)
        penalty = math.exp(-(difference**2) / (2 * _SIGMA**2))
        total += penalty * sum(map(_cosine, ours, theirs))
    return _BEST * total / (_MOST_WORDS * len(references))


def _weighted(counts: Mapping[Ngram, int], rarity: Vector, unseen: float) -> list[Vector]:
    """Return for each size of n-grams how often each stands there, times its rarity."""
    sizes: list[dict[Ngram, float]] = [{} for _ in range(_MOST_WORDS)]
    for ngram, count in counts.items():
        sizes[len(ngram) - 1][ngram] = count * rarity.get(ngram, unseen)
    return list(sizes)


def _num_pairs(counts: Mapping[Ngram, int]) -> int:
    """Count the pairs of words, which the authors' program takes for the length."""
    return sum(count for ngram, count in counts.items() if len(ngram) == 2)


def _cosine(ours: Vector, theirs: Vector) -> float:
    """Return the cosine of two vectors, ours clipped to theirs: to repeat is worth nothing."""
    norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    if not norms:
        return 0.0
    return (
        sum(
            min(weight, theirs[ngram]) * theirs[ngram]
            for ngram, weight in ours.items()
            if ngram in theirs
        )
        / norms
    )
