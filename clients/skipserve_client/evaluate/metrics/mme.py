"""MME: two questions on each picture, and sums of accuracies over subtasks."""

from collections.abc import Mapping, Sequence

import numpy as np

from skipserve_client.evaluate.metrics.item import Item, groups_of
from skipserve_client.evaluate.metrics.metric import (
    POINTS,
    Array,
    Measure,
    Tally,
    share,
)

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)
SUBTASKS = (*PERCEPTION, *COGNITION)
_BEGINNING = 4  # letters in which a yes or a no must come


def said(answer: str) -> str | None:
    """Return what MME reads in an answer: yes or no among its first letters, else nothing.

    Source: calculation.py of MME's eval_tool.
    """
    beginning = answer.lower()[:_BEGINNING]
    return next((word for word in ("yes", "no") if word in beginning), None)


class MmeMetric:
    """The score of a subtask is accuracy and accuracy+, each of 100; their sums are reported.

    Accuracy+ is the share of pictures both questions of which are answered right. Perception sums
    ten subtasks up, cognition four; those that were not asked give nothing. Pictures are resampled,
    within their subtask.

    Source: Fu et al., "MME: A Comprehensive Evaluation Benchmark for Multimodal LLMs", 2023.
    """

    name = "mme"
    tells_right = True
    measures = (
        Measure("perception", POINTS),
        Measure("cognition", POINTS),
        Measure("accuracy"),
    )

    def worths(self, items: Sequence[Item]) -> Sequence[float]:
        """Return 1 for what is right."""
        return [float(said(item.given) in item.expected) for item in items]

    def tally(self, items: Sequence[Item], worths: Array) -> Tally:
        """Count of each picture what its subtask needs."""
        groups = list(groups_of(items).values())
        counts = np.zeros((len(groups), len(SUBTASKS), 4))
        strata = np.zeros(len(groups), dtype=np.int64)
        for unit, places in enumerate(groups):
            strata[unit] = SUBTASKS.index(items[places[0]].type)
            right = [worths[place] for place in places]
            counts[unit, strata[unit]] = sum(right), len(right), min(right), 1.0
        return Tally(counts.reshape(len(groups), -1), strata, _figures)

    def details(self, items: Sequence[Item]) -> Mapping[str, Mapping[str, float]]:
        """Return accuracy, accuracy+ and score of each subtask."""
        tally = self.tally(items, np.array(self.worths(items)))
        cells = tally.counts.sum(axis=0).reshape(len(SUBTASKS), 4)
        found: dict[str, dict[str, float]] = {}
        for subtask, (right, asked, both, pictures) in zip(SUBTASKS, cells.tolist(), strict=True):
            if asked:
                accuracy, plus = right / asked, both / pictures
                found[subtask] = {
                    "accuracy": accuracy,
                    "accuracy+": plus,
                    "score": 100 * (accuracy + plus),
                    "n": int(asked),
                }
        return found


def _figures(sums: Array) -> Array:
    """Return the two scores in points and the accuracy, from counts [..., subtasks * 4]."""
    right, asked, both, pictures = np.moveaxis(
        sums.reshape(*sums.shape[:-1], len(SUBTASKS), 4), -1, 0
    )
    scores = 100 * (share(right, asked) + share(both, pictures))
    first = len(PERCEPTION)
    return np.stack(
        [
            scores[..., :first].sum(axis=-1),
            scores[..., first:].sum(axis=-1),
            share(right.sum(axis=-1), asked.sum(axis=-1)),
        ],
        axis=-1,
    )
